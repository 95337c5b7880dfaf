#include "brume/interop/comfy_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "brume/config/counted.h"
#include "brume/files/json.h"

namespace brume {
namespace {

using nlohmann::json;

/// The nodes, {"3": {"class_type": "KSampler", "inputs": {"seed": 5, "model": ["4", 0]}}}. A link is a list of the node and its output.
class Graph {
 public:
  explicit Graph(json nodes) : nodes_(std::move(nodes)) {}

  std::string type(const std::string& id) const {
    const auto node = nodes_.find(id);
    if (node == nodes_.end() || !node->is_object()) return "";
    const auto name = node->find("class_type");
    return name != node->end() && name->is_string() ? name->get<std::string>() : "";
  }
  /// Returns an input of a node, null if it has none.
  const json& input(const std::string& id, const char* key) const {
    static const json none;
    const auto node = nodes_.find(id);
    if (node == nodes_.end() || !node->is_object() || !node->contains("inputs")) return none;
    const json& inputs = (*node)["inputs"];
    const auto found = inputs.is_object() ? inputs.find(key) : inputs.end();
    return inputs.is_object() && found != inputs.end() ? *found : none;
  }
  /// Returns the node that an input comes from, "" if it is a value or absent.
  std::string source(const std::string& id, const char* key) const { return linked(input(id, key)); }
  /// Returns the node of the first of these inputs that comes from one.
  std::string source(const std::string& id, std::initializer_list<const char*> keys) const {
    for (const char* key : keys)
      if (std::string from = source(id, key); !from.empty()) return from;
    return "";
  }
  /// Returns a value, also of the node of a value that it comes from.
  json value(const std::string& id, const char* key) const {
    json at = input(id, key);
    for (int hops = 0; hops < 16; ++hops) {
      const std::string node = linked(at);
      if (node.empty()) return at;
      at = json();
      for (const char* name : {"value", "seed", "noise_seed", "int", "float", "string", "text", "String", "Number"})
        if (at.is_null()) at = input(node, name);
    }
    return json();
  }
  /// Returns the nodes that no other takes anything from, and everything before them, nearest first.
  std::vector<std::string> backwards() const {
    std::set<std::string> taken;
    for (const auto& [id, node] : nodes_.items())
      for (const std::string& from : sources(id)) taken.insert(from);
    std::vector<std::string> order;
    std::set<std::string> seen;
    for (const auto& [id, node] : nodes_.items())
      if (!taken.contains(id) && seen.insert(id).second) order.push_back(id);
    for (size_t i = 0; i < order.size(); ++i)
      for (const std::string& from : sources(std::string(order[i])))
        if (seen.insert(from).second) order.push_back(from);
    return order;
  }

 private:
  static std::string linked(const json& value) {
    return value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_number_integer() ? value[0].get<std::string>() : "";
  }
  std::vector<std::string> sources(const std::string& id) const {
    std::vector<std::string> all;
    const auto node = nodes_.find(id);
    if (node == nodes_.end() || !node->is_object() || !node->contains("inputs") || !(*node)["inputs"].is_object()) return all;
    for (const auto& [key, value] : (*node)["inputs"].items())
      if (std::string from = linked(value); !from.empty()) all.push_back(from);
    return all;
  }

  json nodes_;
};

bool has(const std::string& text, const char* part) { return text.find(part) != text.npos; }

/// Reads a run backwards from its sampler.
class Reader {
 public:
  explicit Reader(const Graph& graph) : graph_(graph) {}

  std::optional<ComfyRun> read() {
    const std::vector<std::string> order = graph_.backwards();
    const auto last = std::find_if(order.begin(), order.end(), [&](const std::string& id) { return samples(id); });
    if (last == order.end()) return {};
    sampler(*last);
    if (const std::string before = latent(*last); before.empty())
      only(part_of(*last));
    else
      second_pass(before, *last);
    for (const std::string& id : order)
      if (has(graph_.type(id), "ControlNetApply") || has(graph_.type(id), "IPAdapter")) leave_out_node(id);
    return run_;
  }

 private:
  bool samples(const std::string& id) const {
    const std::string type = graph_.type(id);
    return type == "KSampler" || type == "KSamplerAdvanced" || type == "SamplerCustom" || type == "SamplerCustomAdvanced";
  }
  void leave_out(std::string what) {
    if (left_.insert(what).second) run_.left_out.push_back(std::move(what));
  }
  void leave_out_node(const std::string& id) { leave_out(fmt::format("the node {} ({})", graph_.type(id), id)); }

  std::optional<double> number(const std::string& id, const char* key) const {
    const json v = graph_.value(id, key);
    return v.is_number() && std::isfinite(v.get<double>()) ? std::optional(v.get<double>()) : std::nullopt;
  }
  std::optional<int64_t> whole(const std::string& id, const char* key) const {
    const auto v = number(id, key);
    return v && std::abs(*v) < 1e15 ? std::optional(int64_t(*v)) : std::nullopt;
  }
  std::string text(const std::string& id, const char* key) const {
    const json v = graph_.value(id, key);
    return v.is_string() ? v.get<std::string>() : "";
  }
  void seed(const std::string& id, const char* key) {
    const json v = graph_.value(id, key);
    if (v.is_number_unsigned()) run_.seed = v.get<uint64_t>();
  }

  /// Reads everything that a sampler has, with its prompts and its model.
  void sampler(const std::string& id) {
    const std::string guider = graph_.source(id, "guider"), levels = graph_.source(id, "sigmas"), chosen = graph_.source(id, "sampler");
    const std::string by = guider.empty() ? id : guider;
    seed(id, "seed"), seed(id, "noise_seed"), seed(graph_.source(id, "noise"), "noise_seed");
    run_.cfg = number(by, "cfg");
    const std::string timing = levels.empty() ? id : levels;
    run_.steps = whole(timing, "steps"), run_.denoise = number(timing, "denoise"), run_.scheduler = text(timing, "scheduler");
    run_.sampler = text(chosen.empty() ? id : chosen, "sampler_name");
    if (!levels.empty() && run_.scheduler.empty()) leave_out_node(levels);
    run_.prompt = words(graph_.source(by, {"positive", "conditioning"}), "positive");
    run_.negative = words(graph_.source(by, "negative"), "negative");
    model(graph_.source(by, "model"));
  }

  /// The steps of KSamplerAdvanced, which are all of the others.
  struct Part {
    std::string id;
    int64_t from, to, steps;
    bool adds_noise, leaves_noise;
  };
  Part part_of(const std::string& id) const {
    const int64_t steps = whole(id, "steps").value_or(0);
    return {id,
            std::max<int64_t>(0, whole(id, "start_at_step").value_or(0)),
            std::min(steps, whole(id, "end_at_step").value_or(steps)),
            steps,
            text(id, "add_noise") != "disable",
            text(id, "return_with_leftover_noise") == "enable"};
  }

  /// Takes what a run has of its steps; names what has no place.
  void only(const Part& p) {
    if (run_.from_image && p.from > 0 && p.from < p.to && p.to == p.steps && p.adds_noise) {
      run_.first_step = p.from;
      return;
    }
    if (p.from > 0 || p.to < p.steps) leave_out(fmt::format("that the node {} runs the steps from {} to {} alone", p.id, p.from, p.to));
    if (!p.adds_noise) leave_out(fmt::format("that the node {} adds no noise to its latents", p.id));
  }

  /// Returns the words of a conditioning. `side`: which input to follow of nodes that have both.
  std::string words(std::string id, const char* side) {
    for (int hops = 0; hops < 64 && !id.empty(); ++hops) {
      const std::string type = graph_.type(id);
      if (type == "ConditioningZeroOut") return "";
      if (has(type, "CLIPTextEncode")) {
        clip(graph_.source(id, "clip"));
        if (type != "CLIPTextEncode") leave_out(fmt::format("all but the words of the node {} ({})", type, id));
        for (const char* key : {"text", "text_g", "t5xxl", "clip_l"})
          if (std::string found = text(id, key); !found.empty()) return found;
        return "";
      }
      leave_out_node(id);
      id = graph_.source(id, {side, "conditioning", "conditioning_1", "conditioning_to"});
    }
    return "";
  }

  void clip(std::string id) {
    for (int hops = 0; hops < 64 && !id.empty(); ++hops) {
      if (graph_.type(id) == "CLIPSetLastLayer")
        run_.clip_skip = std::clamp<int64_t>(-1 - whole(id, "stop_at_clip_layer").value_or(-1), 0, 255);
      id = graph_.source(id, "clip");
    }
  }

  void model(std::string id) {
    for (int hops = 0; hops < 64 && !id.empty(); ++hops) {
      const std::string type = graph_.type(id), lora = text(id, "lora_name");
      for (const char* key : {"ckpt_name", "unet_name"})
        if (run_.model.empty()) run_.model = text(id, key);
      if (!lora.empty())
        run_.loras.push_back(fmt::format("{}:{}", lora, number(id, "strength_model").value_or(1)));
      else if (run_.model.empty())
        leave_out_node(id);
      id = graph_.source(id, "model");
    }
  }

  /// Reads where the latents of a sampler come from. Returns another sampler, "" if there is no other before it.
  std::string latent(const std::string& sampler) {
    std::string id = graph_.source(sampler, "latent_image");
    for (int hops = 0; hops < 64 && !id.empty(); ++hops) {
      if (samples(id)) return id;
      const std::string type = graph_.type(id);
      if (has(type, "VAEEncode")) {
        run_.from_image = true;
        return "";
      }
      if (has(type, "Empty")) {
        run_.width = whole(id, "width"), run_.height = whole(id, "height"), run_.batch = whole(id, "batch_size").value_or(1);
        return "";
      }
      if (type == "LatentUpscaleBy")
        factor_ = number(id, "scale_by").value_or(1);
      else
        leave_out_node(id);
      id = graph_.source(id, {"samples", "latent", "latent_image"});
    }
    return "";
  }

  /// Makes a second pass, or a refiner, of the sampler that was read, which runs on what the one before it made.
  void second_pass(const std::string& before, const std::string& last) {
    const ComfyRun later = std::exchange(run_, {});
    run_.left_out = later.left_out;
    const double factor = std::exchange(factor_, 1);
    sampler(before);
    if (!latent(before).empty()) leave_out("the runs before the last two");
    const bool same = later.sampler == run_.sampler && later.scheduler == run_.scheduler && later.prompt == run_.prompt;
    const Part p = part_of(before), q = part_of(last);
    if (same && factor == 1 && p.leaves_noise && !q.adds_noise && p.to == q.from && p.steps == q.steps) {
      if (later.model != run_.model || later.cfg != run_.cfg) run_.refined = {later.model, double(p.to) / double(p.steps)};
      return only({before, p.from, q.to, p.steps, p.adds_noise, q.leaves_noise});
    }
    only(p);
    if (same && factor > 1)
      run_.again = {factor, later.denoise.value_or(1)};
    else
      leave_out(fmt::format("a second run of {} at denoise {}", counted(later.steps.value_or(0), "step"), later.denoise.value_or(1)));
  }

  const Graph& graph_;
  ComfyRun run_;
  double factor_ = 1;
  std::set<std::string> left_;
};

}  // namespace

std::optional<ComfyRun> comfy_run(std::string_view text) {
  json nodes = json_or_discarded(text);
  if (!nodes.is_object()) return {};
  return Reader(Graph(std::move(nodes))).read();
}

}  // namespace brume
