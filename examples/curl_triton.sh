#!/bin/sh
# Fill a picture by a model of `glama package BUNDLE --for triton`, with curl alone.
#
#     sh examples/curl_triton.sh photo.ppm mask.pgm filled.ppm [http://localhost:8000] [glama]
#
# The picture is PPM (P6) and the mask PGM (P5), of one size: the pixels of both lie behind a header. Most programs of
# pictures write these formats. Pixels of the mask above 0 are missing.
set -eu
photo=$1 mask=$2 filled=$3 server=${4:-http://localhost:8000} model=${5:-glama}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

{ read -r kind && read -r width height; } <"$photo"
{ read -r mask_kind && read -r mask_width mask_height; } <"$mask"
[ "$kind" = P6 ] || { echo "$photo is not a PPM file (P6)" >&2; exit 2; }
[ "$mask_kind" = P5 ] || { echo "$mask is not a PGM file (P5)" >&2; exit 2; }
case $width in \#*) echo "$photo has a comment in its header; write the file without comments" >&2; exit 2 ;; esac
[ "$mask_width $mask_height" = "$width $height" ] || { echo "$mask has another size, or a comment" >&2; exit 2; }
pixels=$((width * height))

tensor() { # NAME SHAPE BYTES
    printf '{"name":"%s","shape":%s,"datatype":"UINT8","parameters":{"binary_data_size":%d}}' "$1" "$2" "$3"
}
image=$(tensor image "[1,$height,$width,3]" $((3 * pixels)))
holes=$(tensor mask "[1,$height,$width]" $pixels)
header="{\"inputs\":[$image,$holes],\"outputs\":[{\"name\":\"inpainted\",\"parameters\":{\"binary_data\":true}}]}"

{ printf %s "$header" && tail -c $((3 * pixels)) "$photo" && tail -c $pixels "$mask"; } >"$folder/request"
curl --silent --show-error --fail-with-body --header "Inference-Header-Content-Length: ${#header}" \
    --header 'Content-Type: application/octet-stream' --data-binary "@$folder/request" --output "$folder/response" \
    "$server/v2/models/$model/infer" || { cat "$folder/response" >&2 2>/dev/null || true; exit 2; }
{ printf 'P6\n%d %d\n255\n' "$width" "$height" && tail -c $((3 * pixels)) "$folder/response"; } >"$filled"
