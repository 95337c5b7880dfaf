#include "commands/open_features.h"

#include "brume/config/yaml.h"
#include "brume/diffusion/compute.h"
#include "brume/diffusion/model_files.h"

namespace brume::tools {
namespace {

Value features_value(const std::string& text) {
  const size_t colon = text.find(':');
  const bool named = colon != std::string::npos && colon > 0 && colon + 1 < text.size() && text[colon + 1] != ' ' && text[0] != '{';
  if (!named) return parse_yaml(text, "--features");
  Value value = Value::map();
  value.set("type", Value::text(text.substr(0, colon)));
  value.set("path", Value::text(text.substr(colon + 1), true));
  return value;
}

}  // namespace

std::shared_ptr<const Features> open_features(Program& program, const std::string& text, const Overrides& overrides) {
  struct Root {
    ComputeOptions compute;
    void declare(Fields& f) { f.section("compute", compute, "the device, precision and threads of the computation"); }
  } root;
  Overrides where = overrides;
  where.set.clear();
  if (where.precision.empty()) where.precision = "fp32";
  Value asked = Value::map();
  where.apply(asked);
  read_config(program.registry, asked, root);
  const Compute compute = resolve_compute(root.compute);
  const ModelFiles models(program.registry, compute, "");
  const auto classifier = [&](const std::string& path) { return models.classifier_features(path); };
  return create_deferred<Features>(program.registry, features_value(text)).make({classifier, compute.device, compute.dtype});
}

std::string preprocessing_of(const Features& extractor) {
  const std::string what = extractor.preprocessing();
  return "images are " + (what == "none" ? "not preprocessed" : what);
}

}  // namespace brume::tools
