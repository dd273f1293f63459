// Fill the holes of a picture in C++, with ONNX Runtime and a model of `glama-export --io uint8`.
//
//     glama_fill MODEL.onnx PICTURE.ppm MASK.pgm RESULT.ppm
//
// The picture is a binary PPM, the mask a binary PGM of the same size. White pixels of the mask are missing. The model
// pads, scales and composites by itself: the program hands over the bytes of the files.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace fs = std::filesystem;

// Bad input, for which the program ends with exit code 2.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A picture of 8 bits a channel: rows from the top, channels of a pixel side by side, no padding between rows.
struct Picture {
  int64_t height, width, channels;
  std::vector<uint8_t> pixels;
};

// Gray values above this one are missing, as glama-serve reads a mask.
constexpr uint8_t kMissingAbove = 127;

// The largest side of a picture in pixels.
constexpr int64_t kMaxSide = 16384;

// Read a number of a PNM header. White space and comments may stand before the number.
int64_t read_number(std::istream& file, const fs::path& path) {
  while (file >> std::ws && file.peek() == '#') {
    std::string comment;
    std::getline(file, comment);
  }
  int64_t number = 0;
  if (!(file >> number)) throw InputError(path.string() + " has a damaged header; save the file again");
  return number;
}

// Read a binary PPM (`P6`, 3 channels) or PGM (`P5`, 1 channel).
Picture read_pnm(const fs::path& path, const std::string& magic, int64_t channels) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError("cannot read " + path.string() + "; check the path");
  std::string start(2, '\0');
  file.read(start.data(), 2);
  if (start != magic) throw InputError(path.string() + " is not a binary PNM file of the kind " + magic + "; convert it");
  const int64_t width = read_number(file, path), height = read_number(file, path), largest = read_number(file, path);
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide || largest != 255) {
    throw InputError(path.string() + " is not a picture of 8 bits a channel with sides up to 16384 pixels");
  }
  file.get();  // the one white space before the pixels
  Picture picture{height, width, channels, std::vector<uint8_t>(height * width * channels)};
  file.read(reinterpret_cast<char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
  if (!file) throw InputError(path.string() + " ends before its last pixel; save the file again");
  return picture;
}

// Write a binary PPM, whole or not at all.
void write_ppm(const fs::path& path, const Picture& picture) {
  const fs::path unfinished = path.string() + ".part";
  std::ofstream file(unfinished, std::ios::binary);
  file << "P6\n" << picture.width << ' ' << picture.height << "\n255\n";
  file.write(reinterpret_cast<const char*>(picture.pixels.data()), static_cast<std::streamsize>(picture.pixels.size()));
  file.close();
  std::error_code fault;
  if (file) fs::rename(unfinished, path, fault);
  if (!file || fault) {
    fs::remove(unfinished, fault);
    throw InputError("cannot write " + path.string() + "; check the folder and the free space");
  }
}

// Check that the model takes bytes. A model of `--io float` would need padding, scaling and compositing here.
void check_model(const Ort::Session& session) {
  Ort::AllocatorWithDefaultOptions allocator;
  for (size_t index = 0; index < session.GetInputCount(); ++index) {
    const auto name = session.GetInputNameAllocated(index, allocator);
    const auto type = session.GetInputTypeInfo(index).GetTensorTypeAndShapeInfo().GetElementType();
    if (std::string(name.get()) == "image" && type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8) return;
  }
  throw InputError("the model has no input 'image' of bytes; export the network with glama-export --io uint8");
}

// Fill the missing pixels. Known pixels come back as they were.
Picture fill(Ort::Session& session, Picture picture, Picture mask) {
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<int64_t, 4> image_shape{1, picture.height, picture.width, 3};
  const std::array<int64_t, 3> mask_shape{1, picture.height, picture.width};
  for (uint8_t& value : mask.pixels) value = value > kMissingAbove ? 1 : 0;  // above 0 is missing
  std::array<Ort::Value, 2> inputs{
      Ort::Value::CreateTensor<uint8_t>(memory, picture.pixels.data(), picture.pixels.size(), image_shape.data(), 4),
      Ort::Value::CreateTensor<uint8_t>(memory, mask.pixels.data(), mask.pixels.size(), mask_shape.data(), 3),
  };
  const char* input_names[] = {"image", "mask"};
  const char* output_names[] = {"inpainted"};
  const auto outputs = session.Run(Ort::RunOptions{}, input_names, inputs.data(), inputs.size(), output_names, 1);
  const uint8_t* filled = outputs[0].GetTensorData<uint8_t>();
  std::vector<uint8_t> result(filled, filled + picture.pixels.size());
  return {picture.height, picture.width, 3, std::move(result)};
}

int main(int count, char** arguments) try {
  if (count != 5) throw InputError("usage: glama_fill MODEL.onnx PICTURE.ppm MASK.pgm RESULT.ppm");
  const fs::path model = arguments[1];
  Picture picture = read_pnm(arguments[2], "P6", 3);
  Picture mask = read_pnm(arguments[3], "P5", 1);
  if (mask.height != picture.height || mask.width != picture.width) {
    throw InputError("the mask is " + std::to_string(mask.width) + "x" + std::to_string(mask.height) +
                     " and the picture " + std::to_string(picture.width) + "x" + std::to_string(picture.height) +
                     "; give a mask of the picture's size");
  }
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "glama_fill");
  Ort::Session session(environment, model.c_str(), Ort::SessionOptions{});
  check_model(session);
  write_ppm(arguments[4], fill(session, std::move(picture), std::move(mask)));
  return 0;
} catch (const InputError& error) {
  std::fprintf(stderr, "glama_fill: %s\n", error.what());
  return 2;
} catch (const Ort::Exception& error) {
  const std::string message = error.what();
  std::fprintf(stderr, "glama_fill: ONNX Runtime failed: %s\n", message.substr(0, message.find('\n')).c_str());
  return 2;
}
