#include "brume/weights/pickle_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <unordered_map>

#include "brume/config/counted.h"

namespace brume {
namespace {

constexpr size_t max_depth = 200;       // a checkpoint nests a dozen levels
constexpr uint64_t max_unfolding = 16;  // how many times larger than the graph its tree may be

/// The container a value holds, seen as a row of children (keys and values alternate in a dict).
struct Node {
  const Sequence* sequence = nullptr;
  const PickleDict* dict = nullptr;

  explicit Node(const PickleValue& value)
      : sequence(value.as_list() != nullptr ? value.as_list() : value.as_tuple()), dict(value.as_dict()) {}
  const void* address() const { return sequence != nullptr ? static_cast<const void*>(sequence) : dict; }
  size_t size() const { return sequence != nullptr ? sequence->size() : dict->size() * 2; }
  const PickleValue& child(size_t i) const {
    if (sequence != nullptr) return (*sequence)[i];
    const auto& [key, value] = dict->entries()[i / 2];
    return i % 2 == 0 ? key : value;
  }
};

/// What is known of a container: it is open while its children are being visited.
struct Visit {
  bool open = true;
  size_t depth = 1;
  uint64_t unfolded = 1;  ///< nodes of its tree
};

uint64_t saturating_add(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

}  // namespace

void PickleGraph::own(const PickleValue& value) {
  const auto& content = value.content();
  if (const auto* list = std::get_if<PickleValue::PickleList>(&content)) containers_.emplace_back(list->items);
  if (const auto* tuple = std::get_if<PickleValue::PickleTuple>(&content)) containers_.emplace_back(tuple->items);
  if (const auto* dict = std::get_if<std::shared_ptr<PickleDict>>(&content)) containers_.emplace_back(*dict);
}

PickleGraph::~PickleGraph() {
  // Every container is still owned here, so emptying one never destroys another.
  for (auto& container : containers_) {
    std::visit(
        [this](auto& shared) {
          if (!accepted_.contains(shared.get())) shared->clear();
        },
        container);
  }
}

std::string PickleGraph::accept(const PickleValue& root) {
  std::unordered_map<const void*, Visit> visits;
  std::vector<std::pair<Node, size_t>> path;  // containers being visited, with the next child
  uint64_t nodes = 1;
  if (Node(root).address() != nullptr) path.emplace_back(Node(root), 0);
  if (!path.empty()) visits[path.back().first.address()] = {};
  while (!path.empty()) {
    auto& [node, next] = path.back();
    auto& visit = visits[node.address()];
    if (next == node.size()) {
      nodes += 1 + node.size();
      visit.open = false;
      path.pop_back();
      continue;
    }
    const Node child(node.child(next));
    if (child.address() == nullptr) {
      visit.unfolded = saturating_add(visit.unfolded, 1);
      ++next;
      continue;
    }
    const auto [found, is_new] = visits.try_emplace(child.address());
    if (is_new) {  // go down; this child is seen again, closed, on the way back
      if (path.size() >= max_depth) return fmt::format("it is nested more than {} deep", max_depth);
      path.emplace_back(child, 0);
      continue;
    }
    if (found->second.open) return "a container holds itself";
    auto& parent = visits[node.address()];
    parent.unfolded = saturating_add(parent.unfolded, found->second.unfolded);
    parent.depth = std::max(parent.depth, found->second.depth + 1);
    if (parent.depth > max_depth) return fmt::format("it is nested more than {} deep", max_depth);
    ++next;
  }
  const uint64_t unfolded = Node(root).address() == nullptr ? 1 : visits[Node(root).address()].unfolded;
  if (unfolded > 1024 + max_unfolding * nodes) return fmt::format("{} unfold into {}", counted(nodes, "value"), unfolded);
  for (const auto& [address, visit] : visits) accepted_.insert(address);
  return "";
}

}  // namespace brume
