// The messages, with their field numbers: tensorflow/core/util/event.proto (Event), framework/summary.proto (Summary, SummaryMetadata),
// framework/tensor.proto (TensorProto), tensorboard/plugins/hparams/plugin_data.proto (HParamsPluginData).
#include "brume/train/tensorboard.h"

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/yaml.h"
#include "brume/files/mapped_file.h"
#include "brume/image/png.h"
#include "brume/train/event_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

namespace event {
constexpr int wall_time = 1, step = 2, file_version = 3, summary = 5;
}

double seconds_now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

/// Returns Summary {value: {tag, ...}} of a value whose further fields are `rest`.
Message summary_value(const std::string& tag, const Message& rest) {
  return Message().bytes(1, Message().bytes(1, tag).text() + rest.text());
}

/// Returns SummaryMetadata {plugin_data: {plugin_name, content}, data_class}.
Message metadata(const std::string& plugin, const std::string& content, uint64_t data_class) {
  return Message().message(1, Message().bytes(1, plugin).bytes(2, content)).number(4, data_class);
}

Message text_summary(const std::string& tag, const std::string& text) {
  constexpr uint64_t dt_string = 7, of_tensors = 2;
  const Message shape = Message().message(2, Message().number(1, 1));
  const Message tensor = Message().number(1, dt_string).message(2, shape).bytes(8, text);
  return summary_value(tag, Message().message(8, tensor).message(9, metadata("text", "", of_tensors)));
}

/// Returns HParamsPluginData {version: 0, session_start_info: {hparams, start_time_secs}}.
Message hyperparameters(const std::map<std::string, Value>& all) {
  constexpr uint64_t dt_float = 1, of_tensors = 2;
  Message info;
  for (const auto& [path, scalar] : all) {
    Message value;  // google.protobuf.Value
    const auto number = scalar.quoted ? std::nullopt : parse_signed_number<double>(scalar.scalar);
    if (number)
      value.real(2, *number);
    else if (!scalar.quoted && (scalar.scalar == "true" || scalar.scalar == "false"))
      value.number(4, scalar.scalar == "true");
    else
      value.bytes(3, scalar.scalar);
    info.message(1, Message().bytes(1, path).message(2, value));
  }
  info.real(5, seconds_now());
  const Message none = Message().number(1, dt_float).message(2, Message());
  return summary_value("_hparams_/session_start_info",
                       Message().message(8, none).message(9, metadata("hparams", Message().message(3, info).text(), of_tensors)));
}

void collect(const std::string& path, const Value& value, std::map<std::string, Value>& all) {
  const auto below = [&](const std::string& key) { return path.empty() ? key : path + "." + key; };
  if (value.is_scalar()) all[path] = value;
  for (const Value::Entry& e : value.entries) collect(below(e.key), e.value, all);
  for (size_t i = 0; i < value.items.size(); ++i) collect(below(fmt::to_string(i)), value.items[i], all);
}

}  // namespace

std::map<std::string, Value> scalars_of(const Value& root) {
  std::map<std::string, Value> all;
  collect("", root, all);
  return all;
}

TensorBoardLog::TensorBoardLog(const fs::path& directory, const Value& resolved, int64_t step) : file_(directory / event_file_name) {
  trim_events(file_, step);
  std::error_code none;
  if (fs::exists(file_, none) && fs::file_size(file_, none) > 0) return;
  write(0, "brain.Event:2", event::file_version);
  write(0, text_summary("configuration/text_summary", "```yaml\n" + dump_yaml(resolved) + "```").text(), event::summary);
  std::map<std::string, Value> all = scalars_of(resolved);
  std::erase_if(all, [](const auto& e) {
    return !e.first.starts_with("model.") && !e.first.starts_with("train.") && !e.first.starts_with("compute.");
  });
  write(0, hyperparameters(all).text(), event::summary);
}

void TensorBoardLog::write(int64_t step, const std::string& field, int number) {
  const Message e = Message().real(event::wall_time, seconds_now()).number(event::step, uint64_t(step)).bytes(number, field);
  std::ofstream out(file_, std::ios::binary | std::ios::app);
  out << event_record(e.text());
  if (!out.flush()) throw ConfigError(fmt::format("{}: cannot be written: {}", file_.string(), std::strerror(errno)));
}

void TensorBoardLog::scalars(int64_t step, const Metrics& figures) {
  std::string all;
  for (const auto& [name, value] : figures) all += summary_value(name, Message().single(2, float(value))).text();
  write(step, all, event::summary);
}

void TensorBoardLog::image(int64_t step, const fs::path& png) {
  constexpr uint64_t rgb = 3;
  const auto file = MappedFile::open(png.string());
  const PngHeader header = read_png_header(file->bytes(), png.string());
  const Message image =
      Message().number(1, uint64_t(header.height)).number(2, uint64_t(header.width)).number(3, rgb).bytes(4, file->bytes());
  write(step, summary_value("samples", Message().message(4, image)).text(), event::summary);
}

}  // namespace brume
