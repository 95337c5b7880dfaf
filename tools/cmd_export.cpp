// brume export MODEL --to diffusers DIR | --to ldm FILE.safetensors
#include <fmt/format.h>

#include "io/export/export.h"
#include "program.h"

namespace brume::tools {
namespace {

struct Asked {
  std::string source, to, target;
};

void export_model(const Asked& a) {
  const io::Contents model = io::open_model(a.source);
  const auto notes = a.to == "ldm" ? io::export_ldm(model, a.source, a.target) : io::export_diffusers(model, a.source, a.target);
  for (const std::string& note : notes) fmt::print("  other programs will not find: {}\n", note);
  fmt::print("{}\n", a.target);
}

}  // namespace

void add_export(CLI::App& app, Program&, int&) {
  CLI::App* command = app.add_subcommand("export", "a brume model for other programs");
  auto a = std::make_shared<Asked>();
  command->add_option("model", a->source, "a model.safetensors, or what `brume import` takes")->required()->type_name("MODEL");
  command->add_option("--to", a->to, "diffusers: a directory; ldm: one file of latent diffusion, its YAML beside it")
      ->required()
      ->check(CLI::IsMember({"diffusers", "ldm"}));
  command->add_option("target", a->target, "the directory or the file; it must not be there")->required()->type_name("TARGET");
  command->callback([a] { export_model(*a); });
}

}  // namespace brume::tools
