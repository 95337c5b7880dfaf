// Textual inversion (Gal et al. 2022, "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion"): a new
// word of prompts, whose vectors alone are trained. They stand for the token embeddings of CLIP's text encoder; all rows of the model's
// own table stay as they are.
#include "brume/config/registry.h"
#include "brume/core/adapter.h"

namespace brume::plugins {
namespace {

class TextualInversion final : public Adapter {
 public:
  struct Options {
    std::string token;
    int64_t vectors = 1;
    std::string init;
    void declare(Fields& f) {
      f.field("token", token, "the new word, as captions and prompts have it, like <mist> (required)");
      f.field("vectors", vectors, "number of its vectors", within(1, 75));
      f.field("init", init, "words of the model that its vectors start with, token by token in turn, like 'red circle' (required)");
    }
  };
  explicit TextualInversion(const Options& o) : o_(o) {}
  std::vector<std::string> targets() const override { return {}; }
  double alpha() const override { return 0; }
  std::vector<Weight> parameters(const Tensor&, at::Generator&) const override { return {}; }
  std::optional<NewWord> word() const override { return NewWord{o_.token, o_.vectors, o_.init}; }

 private:
  Options o_;
};

}  // namespace

void register_adapter_textual_inversion(Registry& r) {
  r.add<Adapter, TextualInversion>("textual_inversion", "a new word of prompts with vectors of its own");
}

}  // namespace brume::plugins
