// .npz files: those of the reference, what is written and read back, and what is refused.
#include "brume/weights/npz.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "support/file_builders.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

using namespace files;
using at::Tensor;
using files::raw;
using files::zip_bytes;

std::string npy(const std::string& dict, const std::string& data) {
  const std::string header = dict + "\n";
  return std::string("\x93NUMPY\x01\x00", 8) + raw(static_cast<uint16_t>(header.size())) + header + data;
}

TEST(Npz, ReadsTheReferenceFiles) {
  BRUME_NEED_REF("../refs3/npz/npz.json");
  for (const auto& [file, wanted] : ref_json("../refs3/npz/npz.json")["files"].items()) {
    const std::string path = ref_path("../refs3/npz/" + file).string();
    if (wanted["must_be_refused"].get<bool>()) {
      EXPECT_THROW(NpzFile(path).array("arr_0"), ConfigError) << file;
      continue;
    }
    const NpzFile npz(path);
    EXPECT_EQ(npz.names().size(), wanted["arrays"].size()) << file;
    for (const auto& [name, array] : wanted["arrays"].items()) {
      const Tensor t = npz.array(name);
      EXPECT_EQ(t.sizes().vec(), array["shape"].get<std::vector<int64_t>>()) << file << " " << name;
      EXPECT_TRUE(t.to(at::kDouble).flatten().equal(at::tensor(array["values"].get<std::vector<double>>(), at::kDouble))) << file << name;
    }
  }
}

TEST(Npz, WhatIsWrittenIsReadBack) {
  const TempFolder folder;
  const Tensor a = at::arange(6, at::kDouble).view({2, 3}).t() / 7, b = at::arange(5, at::kLong), c = at::scalar_tensor(3.5);
  write_npz(folder.file("a.npz"), {{"a", a}, {"b", b}, {"c", c}});
  const NpzFile file(folder.file("a.npz"));
  EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(file.array("a").equal(a));
  EXPECT_TRUE(file.array("b").equal(b));
  EXPECT_TRUE(file.array("c").equal(c));
  EXPECT_EQ(file.array("c").dim(), 0);
  EXPECT_EQ(without(error_of([&] { file.array("mu"); }), folder), "a.npz: has no array 'mu', only a, b, c");
}

TEST(Npz, ColumnMajorArraysAreTurned) {
  const TempFolder folder;
  const std::string data = raw(1.f) + raw(2.f) + raw(3.f) + raw(4.f) + raw(5.f) + raw(6.f);
  folder.file("f.npz", zip_bytes({{"x.npy", npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", data)}}));
  const Tensor x = NpzFile(folder.file("f.npz")).array("x");
  EXPECT_TRUE(x.equal(at::tensor({1.f, 3.f, 5.f, 2.f, 4.f, 6.f}).view({2, 3})));
}

TEST(Npz, WhatIsWrongIsNamed) {
  const TempFolder folder;
  const auto error = [&](const std::string& member) {
    folder.file("x.npz", zip_bytes({{"x.npy", member, true}}));
    return without(error_of([&] { NpzFile(folder.file("x.npz")).array("x"); }), folder);
  };
  const std::string eight(8, '\0');
  EXPECT_EQ(error(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", eight)), "no error");
  EXPECT_EQ(error(npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", eight)),
            "x.npz: x: has values of type '|O', which is not read");
  EXPECT_EQ(error(npy("{'descr': '>f8', 'fortran_order': False, 'shape': (1,), }", eight)),
            "x.npz: x: has values of type '>f8', which is not read");
  EXPECT_EQ(error(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", eight)),
            "x.npz: x: holds 8 bytes, and its shape [2] needs 16");
  EXPECT_EQ(error(npy("{'descr': '<f8', 'fortran_order': False, }", eight)), "x.npz: x: has a damaged header: 'shape' is missing");
  EXPECT_EQ(error(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", eight)),
            "x.npz: x: has a damaged header: 'shape' is (-1,)");
  EXPECT_EQ(error(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999), }", eight)),
            "x.npz: x: has a shape that no file can hold");
  EXPECT_EQ(error(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 4294967296, 4294967296, 4294967296), }", "")),
            "x.npz: x: has a shape that no file can hold");
  EXPECT_EQ(error("text, and not an array"), "x.npz: x: is no array of numpy");
  folder.file("y.npz", zip_bytes({{"readme.txt", "hello"}}));
  EXPECT_EQ(without(error_of([&] { NpzFile file(folder.file("y.npz")); }), folder), "y.npz: holds no arrays of numpy (NAME.npy)");
}

}  // namespace
}  // namespace brume::test
