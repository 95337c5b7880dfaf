#include "brume/train/adoption.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "brume/config/name_patterns.h"
#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/weights/model_weights.h"

namespace brume {
namespace {

bool ends_with_any(const std::string& name, std::initializer_list<const char*> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](const char* e) { return name.ends_with(e); });
}

/// Returns true for the embeddings of classes of the networks and conditioners that are built in.
bool holds_classes(const std::string& name) {
  return ends_with_any(name, {"label_emb.weight", "y_embedder.embedding_table.weight", "map_label.weight", "conditioner.embedding.weight",
                              "network.class.weight"});
}

/// Returns true for the last layer of the networks that are built in.
bool is_head(const std::string& name) {
  return ends_with_any(
             name, {"network.out.2.weight", "network.out.2.bias", "network.final_layer.linear.weight", "network.final_layer.linear.bias",
                    "network.out_conv.weight", "network.out_conv.bias", "network.out.weight", "network.out.bias"}) ||
         (name.starts_with("network.dec.") && ends_with_any(name, {"aux_conv.weight", "aux_conv.bias"}));
}

/// Returns the one dimension in which the shapes differ; nothing if they differ in several, or in their number.
std::optional<int64_t> differing(at::IntArrayRef a, at::IntArrayRef b) {
  std::optional<int64_t> at;
  if (a.size() != b.size()) return {};
  for (size_t d = 0; d < a.size(); ++d) {
    if (a[d] == b[d]) continue;
    if (at) return {};
    at = int64_t(d);
  }
  return at;
}

/// Returns the class that a user names by name or number. Throws ConfigError naming `path` and the nearest.
int64_t class_of(const std::string& word, const ClassRows& rows, const std::string& path) {
  const auto named = std::find(rows.names.begin(), rows.names.end(), word);
  if (named != rows.names.end()) return named - rows.names.begin();
  const auto number = parse_signed_number<int64_t>(word);
  if (number && *number >= 0 && *number < rows.count) return *number;
  const std::string known = rows.names.empty() ? fmt::format("; there are {}, numbered from 0", rows.count) : hint(word, rows.names);
  throw ConfigError({Problem{{}, path, fmt::format("there is no class '{}'{}", word, known)}});
}

class Adoption {
 public:
  Adoption(const std::string& file, const NamedTensors& source, const std::vector<Weight>& weights, const AdoptionOptions& options,
           const ClassRows& before, const ClassRows& after, const Network* network)
      : file_(file), weights_(weights), o_(options), before_(before), after_(after), network_(network) {
    for (const NamedTensor& t : source)
      if (!t.name.starts_with(files_prefix)) source_.emplace(t.name, t.tensor);
    take_conditioner();
    take_patterns();
    take_classes();
  }

  NamedTensors run() {
    const at::NoGradGuard no_grad;
    NamedTensors all;
    for (const Weight& w : weights_) all.push_back({w.name, fitted(w)});
    for (const auto& [name, tensor] : source_)
      if (!used_.contains(name) && !left_out_.contains(name))
        problem(fmt::format("has a tensor '{}' [{}] that the model does not; train.adopt.left_out: ['{}'] leaves it out", name,
                            fmt::join(tensor.sizes(), ", "), name));
    if (problems_.empty() && !o_.classes.empty() && !class_rows_seen_) problem("train.adopt.classes: no weight holds rows of classes");
    if (!problems_.empty()) throw ConfigError(std::move(problems_));
    return all;
  }

 private:
  void problem(std::string text) { problems_.push_back({{}, "", fmt::format("{}: {}", file_, text)}); }
  void collect(const ConfigError& e) { problems_.insert(problems_.end(), e.problems().begin(), e.problems().end()); }

  /// Lets the source's conditioner be one of several here: conditioner.X is conditioner.N.X, if one of them alone has that weight.
  void take_conditioner() {
    constexpr std::string_view prefix = "conditioner.";
    std::map<std::string, std::vector<std::string>> ours;
    for (const Weight& w : weights_) {
      if (!w.name.starts_with(prefix)) continue;
      const size_t end = w.name.find('.', prefix.size());
      if (end != w.name.npos && parse_number<int64_t>(w.name.substr(prefix.size(), end - prefix.size())))
        ours[w.name.substr(end + 1)].push_back(w.name);
    }
    for (const auto& [rest, names] : ours)
      if (names.size() == 1 && !source_.contains(names.front()))
        if (auto found = source_.extract(std::string(prefix) + rest)) {
          found.key() = names.front();
          source_.insert(std::move(found));
        }
  }

  void take_patterns() {
    std::vector<std::string> theirs, ours;
    for (const auto& [name, tensor] : source_) theirs.push_back(name);
    for (const Weight& w : weights_) ours.push_back(w.name);
    const auto take = [&](const std::vector<std::string>& patterns, const std::vector<std::string>& names, const char* path) {
      try {
        return matching(patterns, names, path);
      } catch (const ConfigError& e) {
        collect(e);
        return std::set<std::string>{};
      }
    };
    left_out_ = take(o_.left_out, theirs, "train.adopt.left_out");
    added_ = take(o_.added, ours, "train.adopt.added");
  }

  void take_classes() {
    for (const auto& [from, to] : o_.classes) {
      const std::string path = "train.adopt.classes." + from;
      try {
        const int64_t row = class_of(to, after_, path);
        if (!row_of_.emplace(row, class_of(from, before_, path)).second)
          throw ConfigError({Problem{{}, path, fmt::format("class '{}' has another class of the source already", to)}});
      } catch (const ConfigError& e) {
        collect(e);
      }
    }
  }

  /// Returns what a weight starts with.
  Tensor fitted(const Weight& w) {
    const Tensor own = w.tensor.detach();
    const auto it = source_.find(w.name);
    if (it != source_.end()) used_.insert(w.name);
    if (added_.contains(w.name)) return own.clone();
    if (it == source_.end()) {
      problem(fmt::format("lacks the tensor '{}' [{}]; train.adopt.added: ['{}'] draws it from the seed", w.name,
                          fmt::join(own.sizes(), ", "), w.name));
      return own;
    }
    const Tensor theirs = it->second;
    if (o_.head == AdoptionOptions::Head::fresh && is_head(w.name)) return own.clone();
    const std::optional<int64_t> at = differing(theirs.sizes(), own.sizes());
    if (const std::optional<int64_t> dim = class_dim(w.name, theirs, own, at)) return with_classes(w.name, theirs, own, *dim);
    if (theirs.sizes() == own.sizes()) return theirs;
    if (o_.input_channels == AdoptionOptions::InputChannels::pad && own.dim() == 4 && at == 1 && own.size(1) > theirs.size(1)) {
      Tensor padded = at::zeros(own.sizes(), own.options());
      padded.narrow(1, 0, theirs.size(1)).copy_(theirs);
      return padded;
    }
    problem(fmt::format("tensor '{}' has shape [{}], the model's has [{}]; {}", w.name, fmt::join(theirs.sizes(), ", "),
                        fmt::join(own.sizes(), ", "), advice(w.name, theirs, own, at)));
    return own;
  }

  std::string advice(const std::string& name, const Tensor& theirs, const Tensor& own, const std::optional<int64_t>& at) const {
    if (at && rows_fit(theirs.size(*at), own.size(*at))) return "train.adopt.classes says which class becomes which";
    if (own.dim() == 4 && at == 1 && own.size(1) > theirs.size(1)) return "train.adopt.input_channels: pad adds channels";
    if (is_head(name)) return "train.adopt.head: new draws the last layer from the seed";
    return fmt::format("train.adopt.added: ['{}'] draws it from the seed", name);
  }

  /// Returns true if a dimension counts the classes on both sides, with or without the null class.
  bool rows_fit(int64_t theirs, int64_t own) const {
    const auto of = [](int64_t rows, const ClassRows& c) { return c.count > 0 && (rows == c.count || rows == c.count + 1); };
    return of(theirs, before_) && of(own, after_);
  }

  /// Returns the dimension of a weight that counts classes; nothing if it has none, or `classes` is not given.
  std::optional<int64_t> class_dim(const std::string& name, const Tensor& theirs, const Tensor& own,
                                   const std::optional<int64_t>& at) const {
    if (o_.classes.empty()) return {};
    const std::optional<int64_t> dim = at || !holds_classes(name) ? at : std::optional<int64_t>(name.ends_with("map_label.weight") ? 1 : 0);
    if (!dim || !rows_fit(theirs.size(*dim), own.size(*dim))) return {};
    return dim;
  }

  Tensor with_classes(const std::string& name, const Tensor& source, const Tensor& own, int64_t dim) {
    class_rows_seen_ = true;
    const Tensor theirs = source.to(own.options());
    Tensor all = own.clone();
    const Tensor fresh = o_.new_rows == AdoptionOptions::NewRows::mean ? theirs.narrow(dim, 0, before_.count).mean(dim) : Tensor();
    for (int64_t row = 0; row < all.size(dim); ++row) {
      Tensor into = all.select(dim, row);
      const bool null = row == after_.count;
      const auto from = row_of_.find(row);
      if (null && theirs.size(dim) > before_.count)
        into.copy_(theirs.select(dim, before_.count));
      else if (!null && from != row_of_.end())
        into.copy_(theirs.select(dim, from->second));
      else if (fresh.defined())
        into.copy_(fresh);
      else if (o_.new_rows == AdoptionOptions::NewRows::zero)
        into.zero_();
    }
    if (network_ && name.starts_with("network.") && theirs.size(dim) != all.size(dim))
      all.mul_(network_->adopted_class_scale(theirs.size(dim), all.size(dim)));
    return all;
  }

  std::string file_;
  const std::vector<Weight>& weights_;
  const AdoptionOptions& o_;
  const ClassRows &before_, &after_;
  const Network* network_;
  bool class_rows_seen_ = false;
  std::map<std::string, Tensor> source_;
  std::map<int64_t, int64_t> row_of_;  ///< row of the training: row of the source
  std::set<std::string> left_out_, added_, used_;
  std::vector<Problem> problems_;
};

bool begins_with_any(const std::string& path, std::initializer_list<const char*> beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(), [&](const char* b) { return path.starts_with(b); });
}

}  // namespace

ClassRows class_rows(const Value& root) {
  const bool classifier = root.find("classifier") != nullptr;
  const Value& count = nearest(root, classifier ? "classifier.classes" : "model.conditioner.classes");
  const Value& names = nearest(root, classifier ? "classifier.class_names" : "model.class_names");
  ClassRows rows;
  if (count.is_scalar()) rows.count = parse_number<int64_t>(count.scalar).value_or(0);
  if (names.is_list())
    for (const Value& name : names.items) rows.names.push_back(name.scalar);
  return rows;
}

NamedTensors adopt(const std::string& file, const NamedTensors& source, const std::vector<Weight>& weights, const AdoptionOptions& options,
                   const ClassRows& before, const ClassRows& after, const Network* network) {
  return Adoption(file, source, weights, options, before, after, network).run();
}

std::string rule_for(const std::string& path) {
  if (path.ends_with(".classes") || path.ends_with("class_names")) return "classes: {...}";
  if (begins_with_any(path, {"model.parameterization", "model.variance", "model.noise"})) return "head: new";
  if (begins_with_any(path, {"model.conditioner", "model.image.channels"})) return "input_channels: pad";
  if (path == "model.image.height" || path == "model.image.width" || path.starts_with("model.network.attention_resolutions")) return "{}";
  return "";
}

bool allows(const AdoptionOptions& o, const std::string& path) {
  const std::string rule = rule_for(path);
  if (rule == "{}" || !o.left_out.empty() || !o.added.empty()) return true;
  if (rule == "classes: {...}") return !o.classes.empty();
  if (rule == "head: new") return o.head == AdoptionOptions::Head::fresh;
  if (rule == "input_channels: pad")  // a null class may come or go with the classes
    return o.input_channels == AdoptionOptions::InputChannels::pad || (!o.classes.empty() && path.starts_with("model.conditioner.dropout"));
  return false;
}

}  // namespace brume
