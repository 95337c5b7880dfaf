#pragma once
// A configuration without its training: the model, how it is sampled and on which device it computes. train/options.h adds the section
// `train:`.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "brume/config/registry.h"
#include "brume/diffusion/compute.h"
#include "brume/diffusion/options.h"

namespace brume {

/// The sections of a diffusion model, of a classifier or of an autoencoder.
struct ModelConfig {
  ModelOptions model;                             ///< without a network if there is a classifier or an autoencoder
  std::optional<ClassifierOptions> classifier;    ///< instead of a model
  std::optional<AutoencoderOptions> autoencoder;  ///< instead of a model
  SampleOptions sample;
  ComputeOptions compute;
  std::vector<std::string> plugins;        ///< libraries: those named under `plugins:`, and those of the plugins in use
  std::vector<std::string> model_plugins;  ///< those that the model and `sample:` use
  void declare(Fields& f);
  /// Throws ConfigError for mistakes between the parts, found without touching data or weights.
  void check() const;
  const ImageShape& image() const { return classifier ? classifier->image : autoencoder ? autoencoder->image : model.image; }

 protected:
  /// Declares the sections; `train` declares what stands between those of the model and `sample:`, given the number of models.
  void declare_sections(Fields& f, const std::function<void(int models)>& train);
};

/// Reads a configuration into `config` by `declare`, then runs `check`, whose mistakes get the place of their path in `root`. Loads the
/// libraries under `plugins:` first. `resolved` receives every key with the value in force.
void read_into(ModelConfig& config, Registry& registry, const Value& root, const Entry::Declare& declare,
               const std::function<void()>& check, Value* resolved = nullptr);

/// Reads and checks a configuration that has no section `train:`.
ModelConfig read_model_configuration(Registry& registry, const Value& root, Value* resolved = nullptr);

/// Calls `read` for the contents of `file`, which was made with these plugin libraries. A model's file never loads code: a ConfigError of
/// `read` is thrown with the names of the libraries that are not loaded.
void read_stored(const Registry& registry, const std::string& file, const std::vector<std::string>& libraries,
                 const std::function<void()>& read);

/// Reads the section `name` of a model's file as read_stored does.
template <class Options>
Options read_section(const Registry& registry, const char* name, const Value& section, const std::string& file,
                     const std::vector<std::string>& libraries) {
  struct Root {
    const char* name;
    Options options{};
    void declare(Fields& f) { f.section(name, options, "of a checkpoint"); }
  };
  Value value = Value::map();
  value.set(name, section);
  Root root{name};
  read_stored(registry, file, libraries, [&] { read_config(registry, value, root); });
  return std::move(root.options);
}

/// Runs `check` on what was read from `root`: its mistakes get the place of their path there.
void check_located(const Value& root, const std::function<void()>& check);

}  // namespace brume
