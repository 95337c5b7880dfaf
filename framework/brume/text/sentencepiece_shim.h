#pragma once
// What passes between libbrume and libbrume_sentencepiece.so: C only, no exceptions, no memory that one side frees for the other.
// Debian 12's libsentencepiece and LibTorch carry clashing protobufs, so nothing of the one may be seen by the other (design.md, 9).
#include <cstddef>

extern "C" {

/// Receives bytes; `to` is the caller's.
typedef void (*BrumePut)(void* to, const char* bytes, size_t size);

struct BrumeSentencePieceTraining {
  int size;       ///< pieces, with the special ones
  int fold_case;  ///< 1 = upper case is read as lower case
  int merges;     ///< by byte-pair merges, instead of a unigram model
  /// Returns the next caption, or null after the last; a caption stays valid until the next call.
  const char* (*next)(void* from, size_t* size);
  void* from;
};

/// What a function returns: if it failed, it gave its reason to `error`.
enum BrumeSentencePieceResult { brume_failed, brume_done, brume_out_of_memory };

/// `open` sets `model` to null if it fails.
struct BrumeSentencePiece {
  BrumeSentencePieceResult (*open)(const char* bytes, size_t size, void** model, void* to, BrumePut error);
  void (*close)(void* model);
  int (*size)(const void* model);
  void (*special)(const void* model, int ids[4]);  ///< unknown, begin, end, padding; -1 = no such piece
  BrumeSentencePieceResult (*encode)(const void* model, const char* text, size_t size, void* to, void (*put)(void* to, int id),
                                     BrumePut error);
  BrumeSentencePieceResult (*decode)(const void* model, const int* ids, size_t count, void* to, BrumePut text, BrumePut error);
  void (*piece)(const void* model, int id, void* to, BrumePut text);
  BrumeSentencePieceResult (*train)(const BrumeSentencePieceTraining* training, void* to, BrumePut model, BrumePut error);
};

/// The one symbol of the library.
typedef const BrumeSentencePiece* (*BrumeSentencePieceEntry)();
}
