#include "brume/weights/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "brume/files/mapped_file.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

std::string bytes_of(const at::Tensor& tensor) {
  const auto dense = tensor.contiguous();
  return {static_cast<const char*>(dense.data_ptr()), dense.nbytes()};
}

void expect_same(const at::Tensor& a, const at::Tensor& b, const std::string& name) {
  EXPECT_EQ(a.scalar_type(), b.scalar_type()) << name;
  EXPECT_EQ(a.sizes(), b.sizes()) << name;
  EXPECT_EQ(bytes_of(a), bytes_of(b)) << name;
}

NamedTensors samples() {
  NamedTensors tensors;
  // Small types first, so that keeping this order in the data would misalign the large ones.
  for (const auto type :
       {at::kBool, at::kByte, at::kChar, at::kBFloat16, at::kHalf, at::kShort, at::kInt, at::kFloat, at::kLong, at::kDouble}) {
    tensors.push_back({c10::toString(type), at::arange(3, at::kFloat).sub(1).to(type)});
  }
  tensors.push_back({"scalar", at::ones({}, at::kFloat)});
  tensors.push_back({"empty", at::zeros({0, 3}, at::kHalf)});
  tensors.push_back({"名前 \"quoted\\\" \n", at::ones({1}, at::kFloat)});
  tensors.push_back({"", at::ones({2}, at::kByte)});
  tensors.push_back({"transposed", at::arange(24, at::kFloat).view({4, 6}).t()});
  tensors.push_back({"expanded", at::ones({1, 1}).expand({3, 2})});
  tensors.push_back({"nan", at::ones({2}).mul(std::numeric_limits<float>::quiet_NaN())});
  return tensors;
}

TEST(Safetensors, RoundTripsBitForBit) {
  const TemporaryFolder folder;
  const auto path = folder.file("model.safetensors");
  const std::map<std::string, std::string> metadata{{"config", "model:\n  noise: \"cosine\" é"}, {"", ""}};
  const auto written = samples();
  write_safetensors(path, written, metadata);
  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata(), metadata);
  const auto read = file.tensors();
  ASSERT_EQ(read.size(), written.size());
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_EQ(read[i].name, written[i].name);
    expect_same(read[i].tensor, written[i].tensor, written[i].name);
  }
  write_safetensors(folder.file("again"), read, file.metadata());  // reading is the inverse of writing
  EXPECT_EQ(content_of(folder.file("again")), content_of(path));
}

TEST(Safetensors, AlignsEveryTensorAndPadsTheHeader) {
  const TemporaryFolder folder;
  const auto path = folder.file("model.safetensors");
  write_safetensors(path, samples());
  const auto mapped = MappedFile::open(path);
  const SafetensorsFile file(mapped);
  uint64_t length = 0;
  std::memcpy(&length, mapped->data(), 8);
  EXPECT_EQ(length % 8, 0u);
  for (const auto& entry : file.entries()) {
    const auto tensor = file.tensor(entry);
    if (tensor.numel() == 0) continue;
    EXPECT_EQ(entry.begin % tensor.element_size(), 0u) << entry.name;
    EXPECT_EQ(tensor.data_ptr(), mapped->at(8 + length + entry.begin)) << entry.name << " is no view";
  }
}

TEST(Safetensors, TensorsOutliveTheirFileAndNeverWriteToIt) {
  const TemporaryFolder folder;
  const auto path = folder.file("model.safetensors");
  write_safetensors(path, {{"a", at::ones({4})}});
  const auto before = content_of(path);
  const auto tensor = SafetensorsFile(path).tensor("a");
  write_safetensors(path, {{"b", at::zeros({4})}});  // replaces the name, not what is mapped
  EXPECT_TRUE(at::equal(tensor, at::ones({4})));
  write_safetensors(path, {{"a", at::ones({4})}});
  const auto changed = SafetensorsFile(path).tensor("a");
  changed.mul_(3);
  EXPECT_TRUE(at::equal(changed, at::ones({4}).mul(3)));
  EXPECT_EQ(content_of(path), before);
}

TEST(Safetensors, CopiesWhatIsMisaligned) {
  const TemporaryFolder folder;
  const auto header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  const auto path = folder.file("odd", safetensors_bytes(header, std::string(1, '\7') + numbers<float>({1.5f, -2})));
  const SafetensorsFile file(path);
  const auto tensor = file.tensor("b");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data_ptr()) % 4, 0u);
  EXPECT_EQ(tensor[0].item<float>(), 1.5f);
  EXPECT_EQ(tensor[1].item<float>(), -2.0f);
}

TEST(Safetensors, AcceptsAFileWithoutTensors) {
  const TemporaryFolder folder;
  write_safetensors(folder.file("none"), {}, {{"step", "3"}});
  EXPECT_EQ(SafetensorsFile(folder.file("none")).metadata().at("step"), "3");
  EXPECT_TRUE(SafetensorsFile(folder.file("empty", safetensors_bytes("{}", ""))).entries().empty());
}

TEST(Safetensors, ListsDtypesItCannotComputeWith) {
  const TemporaryFolder folder;
  const auto header = R"({"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F4","shape":[4],"data_offsets":[2,4]},)"
                      R"("c":{"dtype":"NEW","shape":[7],"data_offsets":[4,5]},"d":{"dtype":"I8","shape":[1],"data_offsets":[5,6]}})";
  const SafetensorsFile file(folder.file("f8", safetensors_bytes(header, std::string(6, '\1'))));
  EXPECT_EQ(file.entries().size(), 4u);
  EXPECT_EQ(file.tensor("d").item<int8_t>(), 1);
  EXPECT_EQ(error_of([&] { file.tensor("b"); }, folder),
            "f8: tensor 'b' has dtype F4, which brume does not compute with (readable: F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, "
            "I16, I8, U8, BOOL)");
  EXPECT_EQ(error_of([&] { file.tensor("e"); }, folder), "f8: has no tensor 'e'");
}

TEST(Safetensors, SaysHowMuchATruncatedFileLacks) {
  const TemporaryFolder folder;
  write_safetensors(folder.file("whole"), {{"a", at::ones({10})}});
  const auto whole = content_of(folder.file("whole"));
  const auto error = [&](size_t size) { return error_of([&] { SafetensorsFile(folder.file("cut", whole.substr(0, size))); }, folder); };
  EXPECT_EQ(error(whole.size() - 1), "cut: is truncated: its tensors have 40 bytes, 39 are there; missing bytes: 1");
  EXPECT_EQ(error(whole.size() - 40), "cut: is truncated: its tensors have 40 bytes, 0 are there; missing bytes: 40");
  EXPECT_EQ(error(28), "cut: is truncated: its header has 56 bytes, 20 are there; missing bytes before the first tensor: 36");
  EXPECT_EQ(error(5), "cut: is truncated: a safetensors file begins with 8 bytes of header length, 5 are there");
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_NE(error(size).find("truncated"), std::string::npos) << size;
}

struct BadHeader {
  const char* header;
  const char* error;
};

TEST(Safetensors, RefusesInvalidHeaders) {
  const TemporaryFolder folder;
  const std::string prefix = "bad: its safetensors header is invalid: ";
  const BadHeader cases[] = {
      {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}})",
       "'a' is there twice"},
      {R"({"a":{"dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[0,8]}})", "'a' has 'dtype' twice"},
      {R"({"__metadata__":{"k":"1","k":"2"}})", "'__metadata__' has 'k' twice"},
      {R"({"__metadata__":{"k":1}})", "metadata 'k' is the number 1 instead of text"},
      {R"({"__metadata__":{"k":{}}})", "metadata 'k' is an object instead of text"},
      {R"({"a":1})", "'a' is the number 1 instead of an object"},
      {R"({"a":{"dtype":"U8","shape":[8]}})", "tensor 'a' has no 'data_offsets'"},
      {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0]}})", "tensor 'a' has 1 data_offsets instead of 2"},
      {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[8,0]}})", "tensor 'a' ends before it begins (0 < 8)"},
      {R"({"a":{"dtype":"U8","shape":[-8],"data_offsets":[0,8]}})", "'shape' of tensor 'a' is or holds a negative number"},
      {R"({"a":{"dtype":"U8","shape":[8.5],"data_offsets":[0,8]}})", "'shape' of tensor 'a' is or holds the number 8.5"},
      {R"({"a":{"dtype":"U8","shape":[[8]],"data_offsets":[0,8]}})", "'shape' of tensor 'a' is or holds a list"},
      {R"({"a":{"dtype":8,"shape":[8],"data_offsets":[0,8]}})", "'dtype' of tensor 'a' is or holds the number 8"},
      {R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,8]}})",
       "'shape' of tensor 'a' is or holds the number 18446744073709551615"},
      {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1}})",
       "tensor 'a' has an unknown entry 'x' (allowed: dtype, shape, data_offsets)"},
      {R"({"a":)", "not JSON at byte 6"},
      {R"({} {})", "not JSON at byte 4"},
      {"{\"a\xff\":{}}", "not JSON at byte 4"},
  };
  for (const auto& [header, error] : cases) {
    const auto path = folder.file("bad", safetensors_bytes(header, std::string(8, '\0')));
    EXPECT_EQ(error_of([&] { SafetensorsFile{path}; }, folder), prefix + error) << header;
  }
}

TEST(Safetensors, RefusesWrongLayouts) {
  const TemporaryFolder folder;
  const BadHeader cases[] = {
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[3],"data_offsets":[5,8]}})",
       "bad: tensor 'b' begins at byte 5 of the data, but the one before it ends at 4 (a hole)"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[5],"data_offsets":[3,8]}})",
       "bad: tensor 'b' begins at byte 3 of the data, but the one before it ends at 4 (an overlap)"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
       "bad: tensor 'a' begins at byte 4 of the data, but the one before it ends at 0 (a hole)"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", "bad: has 4 bytes after its last tensor, which belong to nothing"},
      {R"({"a":{"dtype":"F32","shape":[1,3],"data_offsets":[0,8]}})",
       "bad: tensor 'a' of dtype F32 and shape [1, 3] needs 12 bytes, but has 8"},
      {R"({"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8]}})",
       "bad: tensor 'a' of dtype F64 and shape [4294967296, 4294967296] needs more than 2^61 bytes, but has 8"},
      {R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,8]}})", "bad: tensor 'a' of dtype F4 and shape [3] needs 2 bytes, but has 8"},
  };
  for (const auto& [header, error] : cases) {
    const auto path = folder.file("bad", safetensors_bytes(header, std::string(8, '\0')));
    EXPECT_EQ(error_of([&] { SafetensorsFile{path}; }, folder), error) << header;
  }
  const auto huge = folder.file("bad", raw(uint64_t{100'000'001}) + "{}");
  EXPECT_EQ(error_of([&] { SafetensorsFile{huge}; }, folder),
            "bad: is no safetensors file: its header would have 100000001 bytes (at most 100000000)");
  const auto list = folder.file("bad", safetensors_bytes("[]", ""));
  EXPECT_EQ(error_of([&] { SafetensorsFile{list}; }, folder), "bad: is no safetensors file: its header does not begin with '{'");
}

TEST(Safetensors, RefusesImpossibleBooleans) {
  const TemporaryFolder folder;
  const auto header = R"({"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}})";
  const SafetensorsFile file(folder.file("bad", safetensors_bytes(header, std::string("\0\1\7", 3))));
  EXPECT_EQ(error_of([&] { file.tensor("a"); }, folder), "bad: tensor 'a' is boolean, but element 2 is 7 (allowed: 0, 1)");
}

TEST(Safetensors, RefusesToWriteWhatTheFormatLacks) {
  const TemporaryFolder folder;
  const auto error = [&folder](const NamedTensors& tensors) {
    return error_of([&] { write_safetensors(folder.file("new"), tensors); }, folder);
  };
  EXPECT_EQ(error({{"a", at::ones({1})}, {"a", at::ones({1})}}), "new: cannot be written: two tensors are called 'a'");
  EXPECT_EQ(error({{"__metadata__", at::ones({1})}}), "new: cannot be written: two tensors are called '__metadata__'");
  EXPECT_EQ(error({{"a\xff", at::ones({1})}}), "new: cannot be written: the name or metadata 'a\xff' is not UTF-8");
  EXPECT_EQ(error({{"a", at::Tensor()}}), "new: cannot be written: tensor 'a' is undefined");
  EXPECT_EQ(error({{"a", at::ones({1}, at::kComplexFloat)}}),
            "new: cannot be written: safetensors files hold no tensors like 'a' (ComplexFloat, cpu)");
  EXPECT_EQ(folder.count(), 0u);
}

TEST(Safetensors, ReadsTheReferenceFile) {
  const auto path = shared_file("refs/formats/all_dtypes.safetensors");
  if (path.empty()) GTEST_SKIP() << "refs/formats is not in BRUME_SHARED";
  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"note", "metadata entry"}}));
  const auto expected = nlohmann::json::parse(content_of(shared_file("refs/formats/formats.json"))).at("all_dtypes.safetensors");
  EXPECT_EQ(file.entries().size(), expected.size());
  for (const auto& [name, entry] : expected.items()) {
    const auto tensor = file.tensor(name);
    EXPECT_EQ(tensor.sizes().vec(), entry.at("shape").get<std::vector<int64_t>>()) << name;
    const auto values = tensor.to(at::kDouble).flatten();
    const auto wanted = entry.at("values_as_double").get<std::vector<double>>();
    ASSERT_EQ(values.numel(), static_cast<int64_t>(wanted.size())) << name;
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_EQ(values[static_cast<int64_t>(i)].item<double>(), wanted[i]) << name;
  }
}

}  // namespace
}  // namespace brume
