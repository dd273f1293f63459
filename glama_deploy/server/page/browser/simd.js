/** Tell whether this browser runs WebAssembly with SIMD, which ONNX Runtime Web needs. */

/** A module with one function, which returns `i8x16.popcnt(i8x16.splat(0))`. */
const SIMD_MODULE = [
  ...[0, 97, 115, 109, 1, 0, 0, 0], // \0asm, version 1
  ...[1, 5, 1, 96, 0, 1, 123], // a type: () -> v128
  ...[3, 2, 1, 0], // a function of this type
  ...[10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11], // its code
];

export const canRunSimd = () => typeof WebAssembly === "object" && WebAssembly.validate(Uint8Array.from(SIMD_MODULE));
