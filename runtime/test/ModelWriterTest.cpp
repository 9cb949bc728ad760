//===- ModelWriterTest.cpp - Writing a compiled model ---------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/ModelWriter.h"

#include "runtime/abi/Checksum.h"
#include "runtime/abi/MappedFile.h"
#include "runtime/abi/SafeTensors.h"
#include "runtime/test/ToyModel.h"

#include <gtest/gtest.h>

#include <filesystem>

using namespace gptq::abi;

static Manifest loneFunction() {
  Manifest m;
  m.producer = "test";
  m.target.name = "x86-64";
  ManifestEntry entry;
  entry.name = "f";
  entry.maxM = 4;
  m.entries.push_back(entry);
  return m;
}

TEST(ModelWriter, AlignsEverySectionAndFillsInChecksums) {
  std::string path = gptq::test::temporaryFolder() + "model-writer.gptqm";
  std::string code(100, 'c'), weight(64, 'w'), file(3, 'f');
  Status status = writeModel(path, loneFunction(),
                             {{"code.elf", ByteSpan::of(code)},
                              {"w.0", ByteSpan::of(weight)},
                              {"file.tokenizer.model", ByteSpan::of(file)}});
  ASSERT_TRUE(status.ok()) << status.message();

  Expected<MappedFile> mapped = MappedFile::open(path);
  ASSERT_TRUE(mapped) << mapped.status().message();
  Expected<SafeTensors> st = SafeTensors::open(mapped->bytes());
  ASSERT_TRUE(st) << st.status().message();
  for (const TensorInfo &t : st->tensors())
    if (t.name.rfind("pad.", 0) != 0) {
      EXPECT_EQ((st->dataOffset() + t.begin) % 64, 0u) << t.name;
    }
  ByteSpan text = st->bytes(*st->find("manifest.json"));
  EXPECT_EQ(st->metadata().at("manifest_checksum"),
            checksumText(checksum(text)));
  EXPECT_EQ(st->metadata().at("format"), "gptqm");
  Expected<Manifest> m = parseManifest(text.text());
  ASSERT_TRUE(m) << m.status().message();
  ASSERT_EQ(m->sections.size(), 3u);
  for (const ManifestSection &s : m->sections) {
    const TensorInfo *t = st->find(s.tensor);
    ASSERT_TRUE(t) << s.tensor;
    EXPECT_EQ(s.bytes, int64_t(t->byteSize()));
    EXPECT_EQ(s.checksum, checksum(st->bytes(*t)));
  }
  std::filesystem::remove(path);
}

TEST(ModelWriter, LeavesNothingBehindOnFailure) {
  std::string folder = gptq::test::temporaryFolder() + "model-writer-failure";
  std::filesystem::create_directory(folder);
  Manifest bad = loneFunction();
  bad.entries[0].maxM = 0;
  EXPECT_FALSE(writeModel(folder + "/m.gptqm", bad, {}).ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  EXPECT_FALSE(
      writeModel(folder + "/no/such/m.gptqm", loneFunction(), {}).ok());
  std::filesystem::remove_all(folder);
}

TEST(Checksum, TextIsSixteenDigits) {
  // Published value of XXH3-64 for no bytes.
  EXPECT_EQ(checksumText(checksum({})), "2d06800538d394c2");
  EXPECT_EQ(parseChecksum("2d06800538d394c2"), 0x2d06800538d394c2u);
  EXPECT_FALSE(parseChecksum("2D06800538d394c2"));
  EXPECT_FALSE(parseChecksum("2d06800538d394c"));
}
