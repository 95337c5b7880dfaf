#include "serve/model_shelf.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/config/utf8.h"
#include "brume/config/yaml.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/configuration.h"
#include "brume/diffusion/pipeline.h"
#include "serve/http.h"
#include "serve/job_store.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

constexpr int deepest = 3;  ///< levels below a folder that are searched

thread_local std::vector<std::string>* warnings_of_thread = nullptr;

bool ends_as_model(const fs::path& file) {
  const std::string ending = lower_case(file.extension().string());
  const std::string name = file.filename().string();
  if (name == "training.safetensors") return false;
  return ending == ".safetensors" || ending == ".ckpt" || ending == ".pt" || ending == ".pth" || ending == ".gguf";
}

bool is_model_directory(const fs::path& folder) {
  std::error_code none;
  return fs::exists(folder / "model_index.json", none) || fs::exists(folder / "model.safetensors", none);
}

/// Adds the models of a folder to `files`.
void find_models(const fs::path& folder, int depth, std::vector<fs::path>& files) {
  std::error_code error;
  std::vector<fs::path> all;
  for (auto at = fs::directory_iterator(folder, error); !error && at != fs::directory_iterator(); at.increment(error))
    all.push_back(at->path());
  std::sort(all.begin(), all.end());
  for (const fs::path& path : all) {
    if (path.filename().string().starts_with(".")) continue;
    if (fs::is_directory(path, error)) {
      if (is_model_directory(path))
        files.push_back(path);
      else if (depth < deepest && !fs::exists(path / index_of_jobs, error))
        find_models(path, depth + 1, files);
    } else if (ends_as_model(path)) {
      files.push_back(path);
    }
  }
}

/// Returns a scalar as JSON: what is written without quotes and reads as a number, a truth value or null is one.
nlohmann::ordered_json json_of_scalar(const Value& value) {
  if (value.quoted) return value.scalar;
  if (value.scalar == "true" || value.scalar == "false") return value.scalar == "true";
  if (value.scalar == "null" || value.scalar == "~") return nullptr;
  if (const auto whole = parse_number<int64_t>(value.scalar)) return *whole;
  if (const auto real = parse_number<double>(value.scalar); real && std::isfinite(*real)) return *real;
  return value.scalar;
}

nlohmann::ordered_json json_of(const Value& value) {
  if (value.is_scalar()) return json_of_scalar(value);
  nlohmann::ordered_json json;
  if (value.is_list()) json = nlohmann::ordered_json::array();
  for (const Value& item : value.items) json.push_back(json_of(item));
  if (value.is_map()) json = nlohmann::ordered_json::object();
  for (const auto& [key, place, item] : value.entries) json[key] = json_of(item);
  return json;
}

std::string stamp_of(const std::string& path) {
  std::error_code none;
  const fs::path inner = fs::path(path) / "model.safetensors";
  const fs::path file = fs::exists(inner, none) ? inner : fs::path(path);
  return fmt::format("{} {}", fs::last_write_time(file, none).time_since_epoch().count(),
                     fs::is_directory(file, none) ? 0 : fs::file_size(file, none));
}

struct Description {
  nlohmann::ordered_json json;
  uint64_t bytes = 0;
};

bool is_configuration(const std::string& file) { return file.ends_with(".yaml") || file.ends_with(".yml"); }

/// Reads what a model says of itself, without its weights. Loads the plugin libraries that a configuration names. Throws ConfigError.
Description described(Registry& registry, const std::string& path) {
  const std::string file = model_file(path);
  Value root = Value::map(), resolved;
  std::vector<std::string> plugins;
  uint64_t bytes = 0;
  if (is_configuration(file)) {
    root = load_yaml(file);
    root.erase("train");
  } else {
    const StoredModel stored = open_stored(file);
    for (const NamedTensor& t : stored.tensors) bytes += uint64_t(t.tensor.numel()) * 4;
    root.set("model", stored.card.model);
    root.set("sample", stored.card.sample);
    plugins = stored.card.plugins;
  }
  ModelConfig config;
  read_stored(registry, file, plugins, [&] { config = read_model_configuration(registry, root, &resolved); });
  if (config.classifier || config.autoencoder) throw ConfigError(fmt::format("{}: makes no images", file));
  const Controls controls = config.model.controls();
  std::vector<std::string> classes = config.model.class_names;
  for (int64_t i = int64_t(classes.size()); i < config.model.conditioner->traits().classes; ++i) classes.push_back(std::to_string(i));
  const ImageShape& image = config.model.image;
  Description d{.json = {{"classes", classes},
                         {"text", controls.captions},
                         {"image", {{"channels", image.channels}, {"height", image.height}, {"width", image.width}, {"multiple", nullptr}}},
                         {"defaults", nlohmann::ordered_json::object()}},
                .bytes = bytes};
  if (const Value* sample = resolved.find("sample")) d.json["defaults"] = json_of(*sample);
  return d;
}

/// Opens a model. Throws HttpError that names the field of what cannot be read.
Model opened(const std::string& path, const OpenOptions& options) try { return Model::open(path, options); } catch (const ConfigError& e) {
  const std::string field = options.loras.empty() ? "model" : "loras";
  throw HttpError(400, fmt::format("{}: {}", field, e.what()), field);
}

std::string gigabytes(uint64_t bytes) { return fmt::format("{:.3g} GB", double(bytes) / 1e9); }

}  // namespace

ModelShelf::Warnings::Warnings(std::vector<std::string>& to) { warnings_of_thread = &to; }
ModelShelf::Warnings::~Warnings() { warnings_of_thread = nullptr; }

ModelShelf::ModelShelf(Registry& registry, ShelfOptions options) : registry_(registry), options_(std::move(options)) {
  for (const fs::path& model : options_.models) try {
      if (is_configuration(model.string())) described(registry, model.string());
    } catch (const std::exception&) {  // the list of models says it
    }
}

/// Returns what was found within the last second, or searches the folders.
std::vector<ModelShelf::Found> ModelShelf::found(bool lately) const {
  const auto now = std::chrono::steady_clock::now();
  {
    const std::lock_guard guard(lock_);
    if (lately && !found_.empty() && now - found_at_ < std::chrono::seconds(1)) return found_;
  }
  std::vector<Found> all = searched();
  const std::lock_guard guard(lock_);
  found_at_ = now;
  return found_ = std::move(all);
}

std::vector<ModelShelf::Found> ModelShelf::searched() const {
  std::vector<Found> all;
  const auto add = [&](const fs::path& path, const fs::path& base) {
    std::string id = base.empty() ? path.filename().string() : path.lexically_relative(base).generic_string();
    if (ends_as_model(id) || id.ends_with(".yaml")) id = id.substr(0, id.rfind('.'));
    if (id == "model" && path.has_parent_path()) id = fs::absolute(path).parent_path().filename().string();
    const auto taken = [&](const std::string& name) {
      return std::any_of(all.begin(), all.end(), [&](const Found& f) { return f.id == name; });
    };
    std::string name = id;
    for (int i = 2; taken(name); ++i) name = fmt::format("{}-{}", id, i);
    all.push_back({name, path.string()});
  };
  for (const fs::path& model : options_.models) {
    std::error_code none;
    std::vector<fs::path> files;
    if (fs::is_directory(model, none) && !is_model_directory(model))
      find_models(model, 1, files);
    else
      add(model.has_filename() ? model : model.parent_path(), {});
    for (const fs::path& file : files) add(file, model);
  }
  if (!options_.runs.empty()) {
    std::vector<fs::path> files;
    find_models(options_.runs, 1, files);
    for (const fs::path& file : files)
      if (fs::is_directory(file)) add(file, options_.runs);
  }
  return all;
}

ModelShelf::Facts ModelShelf::facts(const Found& model) const {
  const std::string stamp = stamp_of(model.path);
  {
    const std::lock_guard guard(lock_);
    if (const auto known = facts_.find(model.path); known != facts_.end() && known->second.stamp == stamp) return known->second;
  }
  const std::lock_guard opening(opening_);
  Facts facts{.stamp = stamp, .json = {}, .bytes = 0};
  try {
    Registry own = registry_;  // a configuration that was changed may name other libraries, and other threads read registry_
    const Description d = described(own, model.path);
    facts.json = d.json;
    facts.bytes = d.bytes;
  } catch (const ConfigError& e) {
    facts.json = {{"error", e.what()}};
  } catch (const std::exception& e) {  // of memory: it is tried again
    facts.json = {{"error", e.what()}};
    return facts;
  }
  const std::lock_guard guard(lock_);
  return facts_[model.path] = facts;
}

nlohmann::ordered_json ModelShelf::list() const {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const Found& model : found(false)) {
    const nlohmann::ordered_json json = facts(model).json;
    const std::lock_guard guard(lock_);
    const bool loaded = std::any_of(open_.begin(), open_.end(), [&](const auto& open) { return open.second->path == model.path; });
    nlohmann::ordered_json one{{"id", model.id}, {"loaded", loaded}};
    one.update(json);
    all.push_back(std::move(one));
  }
  return all;
}

std::vector<std::string> ModelShelf::ids(bool lately) const {
  std::vector<std::string> ids;
  for (const Found& model : found(lately)) ids.push_back(model.id);
  return ids;
}

ModelShelf::Prompt ModelShelf::prompt_of(const std::string& id) const {
  for (const Found& model : found()) {
    if (model.id != id) continue;
    const nlohmann::ordered_json json = facts(model).json;
    if (!json.contains("text") || json["text"].get<bool>()) return Prompt::text;
    return json["classes"].empty() ? Prompt::nothing : Prompt::class_name;
  }
  return Prompt::text;
}

std::vector<std::string> ModelShelf::loras() const {
  std::vector<std::string> names;
  std::error_code error;
  if (options_.loras.empty()) return names;
  for (auto at = fs::directory_iterator(options_.loras, error); !error && at != fs::directory_iterator(); at.increment(error))
    if (at->is_regular_file(error) && ends_as_model(at->path())) names.push_back(at->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string ModelShelf::id_of(const std::string& asked) const {
  std::vector<std::string> all = ids(true);
  const auto there = [&] { return std::find(all.begin(), all.end(), asked) != all.end(); };
  if (!asked.empty() && !there()) all = ids();
  if (all.empty())
    throw HttpError(404, "model: the server has no model; train one, or start it with a model or a folder of them", "model", "no_model");
  if (asked.empty() && all.size() == 1) return all.front();
  if (asked.empty()) throw HttpError(400, fmt::format("model: is missing; the server has {}", fmt::join(all, ", ")), "model");
  if (!there())
    throw HttpError(404, fmt::format("model: there is no {}{}", in_quotes(asked), hint(asked, all)), "model", "model_not_found");
  return asked;
}

std::string ModelShelf::lora_path(const std::string& asked) const {
  const std::vector<std::string> all = loras();
  for (const std::string& name : all)
    for (const std::string& short_name : {name, fs::path(name).stem().string()})
      if (asked == short_name || asked.starts_with(short_name + ":"))
        return (options_.loras / name).string() + asked.substr(short_name.size());
  const std::string name = asked.substr(0, asked.find(':'));
  throw HttpError(400,
                  all.empty() ? "loras: the server has none; --loras DIR names their folder"
                              : fmt::format("loras: there is no {}{}", in_quotes(name), hint(name, all)),
                  "loras");
}

/// Closes what is open of this file, but of its last state (`stamp`) the latest used, and models until `bytes` fit.
void ModelShelf::make_room(const std::string& id, const std::string& path, const std::string& stamp, uint64_t bytes) {
  if (options_.memory > 0 && bytes > options_.memory)
    throw HttpError(503,
                    fmt::format("model {} needs {} for its weights, and the server keeps {}: start it with --memory {}", in_quotes(id),
                                gigabytes(bytes), gigabytes(options_.memory), std::ceil(double(bytes) / 1e8) / 10),
                    "model", "out_of_memory");
  const std::lock_guard guard(lock_);
  int kept = 0;
  open_.remove_if([&](const auto& open) { return open.second->path == path && (!open.first.starts_with(stamp) || ++kept > 1); });
  uint64_t used = bytes;
  for (const auto& [key, model] : open_) used += model->bytes;
  for (; options_.memory > 0 && used > options_.memory && !open_.empty(); open_.pop_back()) used -= open_.back().second->bytes;
}

/// Returns an open model, now the latest used; null if it is not open.
std::shared_ptr<const OpenModel> ModelShelf::taken(const std::string& key) {
  const std::lock_guard guard(lock_);
  const auto open = std::find_if(open_.begin(), open_.end(), [&](const auto& o) { return o.first == key; });
  if (open == open_.end()) return nullptr;
  open_.splice(open_.begin(), open_, open);
  return open->second;
}

/// Returns the small first stage of --preview-decoder if it has the model's latents.
std::shared_ptr<const Autoencoder> ModelShelf::preview_of(const Model& model) const {
  const ImageShape image = model.shape(), latent = model.latent();
  const bool pixels = image.height == latent.height && image.width == latent.width && image.channels == latent.channels;
  if (options_.preview_decoder.empty() || pixels) return nullptr;
  const std::string file = std::filesystem::absolute(options_.preview_decoder).string();
  auto decoder = model.others().first_stage(file, image, at::kFloat).autoencoder;
  const ImageShape own = decoder->latent(image);
  const bool fits = own.channels == latent.channels && own.height == latent.height && own.width == latent.width;
  return fits ? decoder : nullptr;
}

std::shared_ptr<const OpenModel> ModelShelf::open(const std::string& id, const std::vector<std::string>& loras) {
  const std::lock_guard opening(opening_);
  const std::vector<Found> all = found();
  const auto model = std::find_if(all.begin(), all.end(), [&](const Found& f) { return f.id == id; });
  if (model == all.end()) throw HttpError(404, fmt::format("model: {} is gone", in_quotes(id)), "model", "model_not_found");
  const Facts known = facts(*model);
  if (known.json.contains("error"))
    throw HttpError(400, fmt::format("model: {} cannot be opened: {}", in_quotes(id), known.json["error"].get<std::string>()), "model",
                    "model_unreadable");
  const std::string stamp = fmt::format("{}|{}|", model->path, known.stamp), key = stamp + fmt::format("{}", fmt::join(loras, "|"));
  if (auto open = taken(key)) return open;
  make_room(id, model->path, stamp, known.bytes);
  OpenOptions o = options_.open;
  const auto registry = std::make_shared<Registry>(registry_);  // into which the model, or its refiner, may load libraries
  o.registry = registry.get();
  o.loras = loras;
  o.warn = [](const std::string& text) {
    if (warnings_of_thread) warnings_of_thread->push_back(text);
  };
  Model made = opened(model->path, o);
  const auto preview = preview_of(made);
  const int64_t multiple = made.pipeline().network().multiple() * made.shape().height / made.latent().height;
  auto opened = std::make_shared<const OpenModel>(OpenModel{registry, std::move(made), model->path, known.bytes, preview});
  const std::lock_guard guard(lock_);
  if (facts_[model->path].json.contains("image")) facts_[model->path].json["image"]["multiple"] = multiple;
  open_.emplace_front(key, opened);
  return opened;
}

}  // namespace brume::tools
