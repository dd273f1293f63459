#!/bin/sh
# Fill a picture by a model of `glama package BUNDLE --for ovms`, with curl alone.
#
#     sh examples/curl_ovms.sh photo.jpg mask.png filled.tga [http://localhost:8000] [glama]
#
# OpenVINO Model Server decodes the files: a JPEG or PNG in RGB, and a PNG in gray, above 0 where pixels are missing.
# The answer has pixels in the order BGR, which a TGA file holds behind its header.
set -eu
photo=$1 mask=$2 filled=$3 server=${4:-http://localhost:8000} model=${5:-glama}
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

bytes() { # COUNT NUMBER: the number's bytes, the lowest first
    count=$1 number=$2
    while [ "$count" -gt 0 ]; do
        printf "\\$(printf %03o $((number % 256)))"
        number=$((number / 256)) count=$((count - 1))
    done
}
length() { wc -c <"$1" | tr -d ' '; }
tensor() { # NAME FILE
    printf '{"name":"%s","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}' \
        "$1" $(($(length "$2") + 4))
}
image=$(tensor image "$photo")
holes=$(tensor mask "$mask")
header="{\"inputs\":[$image,$holes],\"outputs\":[{\"name\":\"inpainted\",\"parameters\":{\"binary_data\":true}}]}"

{
    printf %s "$header"
    for file in "$photo" "$mask"; do
        bytes 4 "$(length "$file")"
        cat "$file"
    done
} >"$folder/request"
curl --silent --show-error --fail-with-body --header "Inference-Header-Content-Length: ${#header}" \
    --header 'Content-Type: application/octet-stream' --data-binary "@$folder/request" --dump-header "$folder/headers" \
    --output "$folder/response" "$server/v2/models/$model/infer" || { cat "$folder/response" >&2 2>/dev/null || true; exit 2; }

json=$(sed -n 's/^[Ii]nference-[Hh]eader-[Cc]ontent-[Ll]ength: *\([0-9]*\).*/\1/p' "$folder/headers")
sides=$(head -c "$json" "$folder/response" | sed 's/.*"shape": *\[1, *\([0-9]*\), *\([0-9]*\), *3\].*/\1 \2/')
height=${sides% *} width=${sides#* }
{
    printf '\000\000\002\000\000\000\000\000\000\000\000\000' # an image of true colors, without a palette
    bytes 2 "$width"
    bytes 2 "$height"
    printf '\030\040' # 24 bits, the first row on top
    tail -c $((3 * width * height)) "$folder/response"
} >"$filled"
