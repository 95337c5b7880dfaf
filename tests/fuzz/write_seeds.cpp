// write_seeds FOLDER: small good files for every fuzz target, in FOLDER/TARGET/.
#include <filesystem>
#include <fstream>

#include "support/file_builders.h"
#include "support/image_builders.h"
#include "support/tar_builder.h"

namespace brume::test::files {
namespace {

void write(const std::string& folder, const std::string& name, const std::string& bytes) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/" + name, std::ios::binary) << bytes;
}

std::string legacy_storage(std::string_view kind, std::string_view key, int32_t count) {
  const auto view = pickle::tuple({pickle::text("v"), pickle::integer(1), pickle::integer(count - 1)});
  return pickle::tuple({pickle::text("storage"), pickle::global("torch", kind), pickle::text(key), pickle::text("cpu"),
                        pickle::integer(count), view}) +
         "Q";
}

/// A state dict of two tensors, with what Lightning stores with it.
std::string training_file(const std::string& floats, const std::string& flags) {
  const auto callback = pickle::global("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint");
  return pickle::whole(pickle::dict(
      {{"epoch", "K\x03"},
       {"state_dict", pickle::dict({{"a", pickle::tensor(floats, 1, {2, 2}, {2, 1})}, {"b", pickle::tensor(flags, 0, {1}, {1})}})},
       {"callbacks", "}(" + callback + "}u"},
       {"list", "](G?\xf0" + std::string(6, '\0') + "\x8a\x02\x01\x02" + "q\x01h\x01" + "e"}}));
}

/// A model of SentencePiece (a protobuf of its pieces, each with a score, and of its kind, a unigram model) of pieces and their types.
std::string sentencepiece_of(const std::vector<std::pair<std::string, int>>& pieces) {
  std::string model;
  for (const auto& [text, type] : pieces) {
    const std::string piece =
        "\x0a" + std::string(1, char(text.size())) + text + "\x15" + raw<float>(-1) + "\x18" + std::string(1, char(type));
    model += "\x0a" + std::string(1, char(piece.size())) + piece;
  }
  const std::string kind = "\x18\x01\x20" + std::string(1, char(pieces.size()));
  return model + "\x12" + std::string(1, char(kind.size())) + kind;
}

/// Small files of every format, lying on their side if a format can say so.
void write_images(const std::string& folder) {
  const Samples samples{
      2, 3, 4, 8, {10, 20, 30, 255, 200, 20, 30, 255, 10, 210, 30, 255, 200, 210, 30, 255, 10, 20, 220, 255, 10, 210, 220, 255}};
  write(folder, "png", png_of(samples, png_chunk("eXIf", exif(6, true))));
  write(folder, "grey_png", png_of({1, 2, 1, 8, {1, 2}}, png_chunk("tRNS", number(2, 2, true))));
  write(folder, "tiff", tiff_of(samples, 8, false));
  write(folder, "webp", webp_of(samples, 5));
  const std::string bits = webp_chunk("VP8L", vp8l_of(samples)), place = number(0, 6, false) + number(2, 3, false) + number(1, 3, false);
  write(folder, "animated_webp", webp_file(webp_canvas(2, 3, 2) + webp_chunk("ANMF", place + number(100, 4, false) + bits)));
  const std::string data = std::string("Exif\0\0", 6) + exif(3, false);
  write(folder, "jpeg",
        "\xff\xd8\xff\xe1" + number(data.size() + 2, 2, true) + data + std::string("\xff\xc0\0\x0b\x08\0\x08\0\x10\x01\x01\x11\0", 13) +
            "\xff\xd9");
  write(folder, "bmp",
        "BM" + number(58, 4, false) + number(54ull << 32, 8, false) + number(40, 4, false) + number(3, 4, false) + number(2, 4, false));
  write(folder, "pnm", "P6 # a comment\n3 2 255\n");
}

/// A kind and what it reads, see fuzz_request.cpp.
void write_requests(const std::string& folder) {
  write(folder, "address", "a/api/v1/jobs/20261129-184501-000123-9f3a/images/0.png?a=%41+b");
  write(folder, "job",
        R"(j{"prompt": "a", "classes": ["1"], "n": 2, "seed": "18446744073709551615", "cfg": 1.5, "sampler": {"type": "ddim", "eta": 1}, )"
        R"("guidance": [{"type": "cfg"}], "loras": ["a:1", {"file": "b", "scale": 2}], "image": "iVBORw0KGgo=", "width": 8, "height": 8})");
  write(folder, "form",
        "fmultipart/form-data; boundary=\"B\"\n--B\r\nContent-Disposition: form-data; name=\"a\"; filename=\"b\"\r\n\r\nc\r\n--B--\r\n");
  write(folder, "picture",
        "bdata:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAYAAADED76LAAAAD0lEQVR42mP4TwAwjAwFAIS1/wHNOWXHAAAAAElFTkSuQmCC");
  write(folder, "infotext", "ia cat\nNegative prompt: b\nSteps: 20, Sampler: Euler a, Size: 8x8, Model: \"x, y\", Seed: 5");
  write(
      folder, "comfy",
      R"(c{"3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal", )"
      R"("denoise": 1.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["6", 0], "latent_image": ["5", 0]}}, "4": {"class_type": )"
      R"("CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}}, "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 8}}, )"
      R"("6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a", "clip": ["4", 1]}}})");
}

/// Tables, configurations, prompts, archives and images of MNIST's format.
void write_texts(const std::string& folder) {
  write(folder + "/csv", "csv", "a,b,c,d\n1.png,\"red, \"\"round\"\"\",x,\n2.png , blue,y,z\r\n");
  write(folder + "/csv", "tsv", "a\tb\tc\td\n1.png\tred\tx\ty\n");
  write(folder + "/csv", "jsonl", "{\"a\": \"1.png\", \"b\": [\"red\", \"blue\"], \"c\": \"x\", \"d\": \"y\"}\n");
  write(folder + "/yaml", "block", "a: 1\nb:\n  - x\n  - {c: [1, 2.5e-3, '3'], d: \"e\\n\"}\nf: |\n  text\n  more\ng: ~\n# h\n");
  write(folder + "/yaml", "anchors", "a: &x {b: 1}\nc: *x\n<<: *x\n");
  write(folder + "/prompt", "weights", "a (red:1.3) [circle] ((on)) grey BREAK a [cat|dog] in [x:y:0.5] AND b :0.5 \\( \\)");
  write(folder + "/prompt", "files", std::string("red\n# no\n__b__ blue\n\0green\nx__a__\n\0a __a__ and __b__", 52));
  write(folder + "/tar", "small", tar_of({{"a.txt", "words"}, {"folder/b.png", std::string(600, 'x')}}));
  write(folder + "/idx", "images", std::string("\0\0\x08\x03\0\0\0\2\0\0\0\2\0\0\0\3", 16) + "abcdefghijkl");
  write(folder + "/idx", "labels", std::string("\0\0\x08\x01\0\0\0\2\3\1", 10));
  write(folder + "/sentencepiece", "small",
        sentencepiece_of({{"<unk>", 2},
                          {"<s>", 3},
                          {"a", 1},
                          {"\xe2\x96\x81"
                           "red",
                           1},
                          {"b", 1}}));
  // A piece, and its text, of 260 MB that are not there.
  write(folder + "/sentencepiece", "short", sentencepiece_of({{"a", 1}}) + "\x0a\xef\xff\xff\x7f\x0a\xef\xff\xff\x7e" + "red");
  const Samples pair{2, 2, 2, 8, {10, 255, 200, 0, 100, 51, 40, 255}};
  write(folder + "/pixels", "grey_tiff", tiff_of(pair, 1, false));
  write(folder + "/pixels", "differences", tiff_of(pair, 1, true, 1, {{317, 2}}));
  std::string bmp = "BM" + number(0, 8, false) + number(122, 4, false) + number(108, 4, false) + number(2, 4, false) + number(1, 4, false) +
                    number(1, 2, false) + number(32, 2, false) + number(3, 4, false) + number(8, 4, false) + number(0, 16, false);
  for (const uint32_t mask : {0xff0000u, 0xff00u, 0xffu, 0xff000000u}) bmp += number(mask, 4, false);
  bmp.resize(122, '\0');
  write(folder + "/pixels", "bmp_alpha", bmp + "abcdefgh");
}

void write_weights(const std::string& folder) {
  const auto floats = numbers<float>({0, 1, 2, 3, 4, 5});
  const std::string flags("\0\1", 2);
  const auto header =
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BOOL","shape":[2],"data_offsets":[24,26]},"h":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[26,26]}})";
  write(folder + "/safetensors", "small", safetensors_bytes(header, floats + flags));
  const auto text = [](const std::string& s) { return raw<uint64_t>(s.size()) + s; };
  std::string gguf = "GGUF" + raw<uint32_t>(3) + raw<uint64_t>(1) + raw<uint64_t>(1) + text("k") + raw<uint32_t>(8) + text("v") +
                     text("b") + raw<uint32_t>(1) + raw<uint64_t>(32) + raw<uint32_t>(8) + raw<uint64_t>(0);
  gguf.resize((gguf.size() + 31) / 32 * 32);
  write(folder + "/gguf", "small", gguf + std::string(34, '\1'));
  const auto id = pickle::tuple({pickle::text("storage"), pickle::global("torch", "FloatStorage"), pickle::text("7"), pickle::text("cpu"),
                                 pickle::integer(6), "N"}) +
                  "Q";
  const std::string saved = legacy_torch_bytes(pickle::whole(id), {{"7", 6, floats}});
  const std::string storage =
      pickle::global("torch.storage", "_load_from_bytes") + "B" + raw<uint32_t>(uint32_t(saved.size())) + saved + "\x85R";
  const std::string network =
      pickle::global("torch_utils.persistence", "_reconstruct_persistent_obj") +
      pickle::dict({{"class_name", pickle::text("Net")},
                    {"state", pickle::dict({{"_parameters", pickle::dict({{"w", pickle::tensor(storage, 0, {2, 3}, {3, 1})}})}})}}) +
      "\x85R";
  write(folder + "/network_pickle", "small", pickle::whole(pickle::dict({{"ema", network}})));
  write(folder + "/safetensors", "empty", safetensors_bytes("{}", ""));

  const auto pickled = training_file(pickle::storage("FloatStorage", "0", 6), pickle::storage("BoolStorage", "1", 2));
  write(folder + "/pickle", "training_file", pickled);
  write(folder + "/pickle", "protocol_0", "(dp0\nVa\np1\n(lp2\nI1\naL-5000000000L\naI01\naNasVb\np3\n(F1.5\n(Vx\np4\ntp5\ntp7\ns.");
  write(folder + "/torch", "zip", torch_bytes(pickled, {floats, flags}));
  write(folder + "/torch", "compressed", torch_bytes(pickled, {floats, flags}, true));
  const auto legacy = training_file(legacy_storage("FloatStorage", "0", 6), legacy_storage("BoolStorage", "1", 2));
  write(folder + "/torch", "legacy", legacy_torch_bytes(legacy, {{"0", 6, floats}, {"1", 2, flags}}));
  write(folder + "/zip", "both", zip_bytes({{"a", "content"}, {"b", std::string(50, 'x'), true}, {"c", "wide", false, 3, true}}, true));
  write(folder + "/zip", "empty", zip_bytes({}));
  const std::string array =
      std::string("\x93NUMPY\x01\0", 8) + raw<uint16_t>(59) + "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n";
  write(folder + "/npz", "array", zip_bytes({{"mu.npy", array + floats}, {"sigma.npy", array + floats, true}}));
}

void write_all(const std::string& folder) {
  write_weights(folder);
  write(folder + "/json", "unet",
        R"({"_class_name": "UNet2DConditionModel", "sample_size": 8, "block_out_channels": [32, 64], "layers_per_block": 1, )"
        R"("cross_attention_dim": 32, "attention_head_dim": [4, 8], "norm_eps": 1e-05, "center_input_sample": false, "act_fn": "silu", )"
        R"("down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]})");
  write(folder + "/json", "words", R"({"a": -Infinity, "b": "\u00e9\n", "c": null})");
  write(folder + "/clip_tokenizer", "text", "a ABBA's b! caf\xc3\xa9 <|endoftext|> 12");
  const std::string vocabulary = R"({"a": 0, "b</w>": 1, "ab</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4})";
  write(folder + "/clip_tokenizer", "files", vocabulary + '\0' + "#version: 0.2\na b</w>\n" + '\0' + "ab a b");
  write_images(folder + "/image_header");
  write_requests(folder + "/request");
  write_images(folder + "/pixels");
  write_texts(folder);
}

}  // namespace
}  // namespace brume::test::files

int main(int count, char** arguments) {
  if (count != 2) return 1;
  brume::test::files::write_all(arguments[1]);
}
