#!/usr/bin/env bash
# Fetches the four files of Fashion-MNIST (Xiao, Rasul & Vollgraf 2017; MIT licence; 30.9 MB) to data/fashion_mnist, where the
# configurations look for them. Checks sizes and SHA-256; continues a transfer that was cut off; fetches nothing that exists already.
#   tools/scripts/get_fashion_mnist.sh [FOLDER]
#   FASHION_MNIST_URL=https://mirror/folder tools/scripts/get_fashion_mnist.sh     another source, also file:///folder
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-data/fashion_mnist}
revision=b2617bb6d3ffa2e429640350f613e3291e10b141
sources=("${FASHION_MNIST_URL:-https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/$revision/data/fashion}")
[ -n "${FASHION_MNIST_URL:-}" ] || sources+=(http://fashion-mnist.s3-website.eu-central-1.amazonaws.com)
files="
train-images-idx3-ubyte.gz 26421880 3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84
train-labels-idx1-ubyte.gz    29515 a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845
t10k-images-idx3-ubyte.gz   4422102 346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073
t10k-labels-idx1-ubyte.gz      5148 67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"

command -v curl >/dev/null || { echo "curl is not installed: apt-get install -y curl" >&2; exit 1; }
options=(--fail --location --silent --show-error --retry 3 --connect-timeout 20)
size_of() { stat -c %s "$1" 2>/dev/null || echo 0; }
is_whole() { [ "$(size_of "$1")" -eq "$2" ] && echo "$3  $1" | sha256sum --check --status; }

# Continues FILE from URL; starts again if the server cannot continue (curl: 33).
transfer() {
  local code=0
  curl "${options[@]}" --continue-at - --output "$2" "$1" || code=$?
  [ $code -eq 33 ] || return $code
  rm -f "$2"
  curl "${options[@]}" --output "$2" "$1"
}

# Leaves a whole file under its name, an unfinished one under NAME.part. Fails if no source gives the published bytes.
fetch() {
  local name=$1 size=$2 sum=$3 part=$folder/$1.part source
  for source in "${sources[@]}"; do
    [ "$(size_of "$part")" -lt "$size" ] || rm -f "$part"
    echo "$name: $size bytes from $source"
    transfer "$source/$name" "$part" || continue
    if is_whole "$part" "$size" "$sum"; then
      mv "$part" "$folder/$name"
      return
    fi
    echo "$name: $(size_of "$part") bytes with another SHA-256 than the published file's; removed" >&2
    rm -f "$part"
  done
  return 1
}

mkdir -p "$folder"
while read -r name size sum; do
  [ -n "$name" ] || continue
  is_whole "$folder/$name" "$size" "$sum" && continue
  fetch "$name" "$size" "$sum" || { echo "$name could not be fetched; run this again to continue" >&2; exit 1; }
done <<<"$files"
echo "Fashion-MNIST is in $folder"
