// brume export MODEL --to diffusers DIR | --to ldm FILE.safetensors | --to dit FILE.safetensors
#include <fmt/format.h>

#include "brume/diffusion/checkpoint.h"
#include "brume/interop/export/export.h"
#include "brume/train/options.h"
#include "brume/weights/int8_tensors.h"
#include "program/program.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string source, to, target;
};

/// Returns a model with every key of its sections written out: those of a foreign one say only what its source does.
Contents opened(Program& program, const std::string& path) {
  Contents model = open_model(path);
  model.tensors = without_int8(path, std::move(model.tensors));
  Value root = Value::map(), resolved;
  for (const char* section : {"model", "autoencoder", "sample"})
    if (model.metadata.has(section)) root.set(section, model.metadata.section(section, path));
  if (root.entries.empty()) return model;  // a classifier, which the exports refuse themselves
  read_stored_configuration(program.registry, root, path, {}, &resolved);
  for (const Value::Entry& e : root.entries) model.metadata.set(e.key, *resolved.find(e.key));
  return model;
}

void export_model(Program& program, Arguments a) {
  a.source = model_file(a.source);
  const Contents model = opened(program, a.source);
  const auto notes = a.to == "ldm"   ? export_ldm(model, a.source, a.target)
                     : a.to == "dit" ? export_dit(model, a.source, a.target)
                                     : export_diffusers(model, a.source, a.target);
  for (const std::string& note : notes) fmt::print("  other programs will not find: {}\n", note);
  fmt::print("{}\n", a.target);
}

}  // namespace

void add_export(Command app, Program& program, int&) {
  const Command command = app.add_subcommand("export", "converts a brume model for other programs");
  auto a = std::make_shared<Arguments>();
  command.add_option("model", a->source, "a model.safetensors, or what `brume import` takes").required().type_name("MODEL");
  command
      .add_option("--to", a->to,
                  "diffusers: a directory; ldm: one file of latent diffusion or SDXL, and its YAML; dit: the same of DiT, "
                  "SiT or PixArt")
      .required()
      .check(one_of({"diffusers", "ldm", "dit"}));
  command.add_option("target", a->target, "the directory or the file; it must not exist").required().type_name("TARGET");
  command.callback([&program, a] { export_model(program, *a); });
}

}  // namespace brume::tools
