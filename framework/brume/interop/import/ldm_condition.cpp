#include "brume/interop/import/ldm_condition.h"
#include "brume/config/tree.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/interop/import/clip_vocabulary.h"
#include "brume/interop/import/ldm_completion.h"
#include "brume/interop/import/ldm_xl.h"

namespace brume {
namespace {
namespace fs = std::filesystem;

/// Reads the classes: `rows` there are, of which the last may be the null class. Among the thousand classes of ImageNet one more is.
void read_classes(LdmReading& r, int64_t rows, int64_t width, LdmCondition& c) {
  const std::optional<bool> set = r.truth("null_class");
  const std::optional<double> dropped = r.config.number("cond_stage_config.params.ucg_rate");
  const bool null = set.value_or(dropped ? *dropped > 0 : rows == 1001);
  if (null && rows < 2) r.refuse("null_class=true: it has one class, which cannot be the null class");
  if (!set && !dropped && !null)
    r.losses.push_back(
        fmt::format("not in the file: whether the last of its {} is the null class, for guidance; it is taken to be none, and "
                    "null_class=true says otherwise",
                    counted(rows, "class")));
  c.conditioner = plugin_of("class_label",
                            {{"classes", rows - (null ? 1 : 0)}, {"dropout", null ? dropped.value_or(0.1) : 0}, {"context_width", width}});
  if (null) c.guidance = {plugin_of("cfg", {{"scale", 3}})};
}

/// Reads LDM's ClassEmbedder: a class is a context of one token.
void read_class_token(LdmReading& r, const LdmUnet& u, const ModuleTensors& encoder, LdmCondition& c) {
  const int64_t width = r.of_tensors([&] { return encoder.size("embedding.weight", 1); });
  if (width != u.context_width)
    r.refuse(fmt::format("the class's token has width {}, and the U-Net attends to tokens of {}", width, u.context_width));
  c.tensors.push_back({"embedding.weight", encoder.by_name().at("embedding.weight")});
  read_classes(r, encoder.size("embedding.weight", 0), width, c);
}

void read_clip(LdmReading& r, const LdmUnet& u, const ModuleTensors& encoder, LdmCondition& c) {
  const bool open_clip = encoder.has("model.positional_embedding");
  const std::string layer = r.config.word("cond_stage_config.params.layer").value_or(open_clip ? "penultimate" : "last");
  if (layer != "last" && !(open_clip && layer == "penultimate"))
    r.refuse(fmt::format("the text encoder's layer is '{}'; brume has 'last'{}", layer, open_clip ? " and 'penultimate'" : ""));
  const LdmText text = r.of_tensors([&] { return read_ldm_text(encoder, layer == "penultimate"); });
  if (text.width != u.context_width)
    r.refuse(fmt::format("the text encoder's tokens have width {}, and the U-Net attends to tokens of {}", text.width, u.context_width));
  const int64_t heads = ldm_text_heads(r, text.width);
  c.tensors = r.of_tensors([&] { return ldm_text_tensors(encoder, text); });
  if (open_clip && layer == "penultimate") r.losses.push_back("the last layer of the text encoder, which the model does not use");
  for (const char* more : {"model.text_projection", "transformer.text_projection.weight"})
    if (encoder.has(more)) r.losses.push_back("the text encoder's projection into the space shared with images");
  c.files = ldm_tokenizer(r);
  fit_token_rows(c.tensors, c.files, r.losses);
  c.conditioner = text.options(heads);
  c.guidance = {plugin_of("cfg", {{"scale", 7.5}})};
}

[[noreturn]] void refuse_encoder(const LdmReading& r, const ModuleTensors& encoder) {
  if (encoder.empty())
    r.refuse(
        fmt::format("lacks the encoder of its condition{}: its U-Net attends to tokens, and there is no tensor 'cond_stage_model.'; "
                    "text_encoder=FILE completes it with CLIP's of another file",
                    r.config.target("cond_stage_config").empty() ? "" : fmt::format(" ({})", r.config.target("cond_stage_config"))));
  if (encoder.has("transformer.token_emb.weight"))
    r.refuse(
        "its condition is encoded by BERTEmbedder: a transformer over the tokens of bert-base-uncased, whose vocabulary is in no such "
        "file. brume has neither; it has CLIP's text encoders (FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder) and classes (ClassEmbedder)");
  const std::string target = r.config.target("cond_stage_config");
  r.refuse(
      fmt::format("its condition is encoded by {}; brume has the text encoders of CLIP (FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder) "
                  "and classes (ClassEmbedder)",
                  target.empty() ? "an encoder that is unknown" : target));
}

}  // namespace

Files ldm_tokenizer(const LdmReading& r) {
  const std::string* set = r.setting("tokenizer");
  const char* named = std::getenv("BRUME_CLIP_TOKENIZER");
  const fs::path nearby = r.source.path.parent_path() / "tokenizer";
  fs::path folder;
  if (set)
    folder = *set;
  else if (fs::is_regular_file(nearby / "vocab.json") || fs::is_regular_file(nearby / "tokenizer.json"))
    folder = nearby;
  else if (named && *named)
    folder = named;
  else
    r.refuse(
        fmt::format("CLIP's tokenizer is not in such files: tokenizer=DIR names the folder with vocab.json and merges.txt, or a folder "
                    "'tokenizer' next to the file, or the variable BRUME_CLIP_TOKENIZER"));
  try {
    return read_clip_vocabulary(folder);
  } catch (const ConfigError& e) {
    throw ConfigError(fmt::format("tokenizer={}", e.what()));
  }
}

int64_t ldm_text_heads(const LdmReading& r, int64_t width) {
  const std::optional<int64_t> heads = r.integer("text_heads", "cond_stage_config.params.heads");
  if (!heads && width % 64)
    r.refuse(
        fmt::format("how many heads a text encoder of width {} has cannot be read from tensors (CLIP's have a head per 64): text_heads=N "
                    "says it",
                    width));
  return heads.value_or(width / 64);
}

LdmCondition read_ldm_condition(LdmReading& r, const LdmUnet& u) {
  if (u.added_width > 0) return read_xl_condition(r, u);
  const ModuleTensors encoder = ldm_condition_module(r);
  LdmCondition c;
  if (u.context_width == 0 && u.classes > 0)
    read_classes(r, u.classes, 0, c);
  else if (u.context_width == 0)
    c.conditioner = value_of("none");
  else if (encoder.has("embedding.weight"))
    read_class_token(r, u, encoder, c);
  else if (encoder.has("model.positional_embedding") || encoder.below("transformer.text_model.embeddings.") ||
           encoder.below("transformer.embeddings."))
    read_clip(r, u, encoder, c);
  else
    refuse_encoder(r, encoder);
  return c;
}

}  // namespace brume
