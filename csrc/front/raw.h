// The raw operators, called by what a record of arguments holds: the tensors, numbers and shapes of a signature, each
// kind in its order.
#pragma once

#include <array>
#include <tuple>
#include <vector>

#include "ops.h"

namespace vae_fast {

// As many as any operator has.
constexpr int kMostOperands = 8, kMostNumbers = 24, kMostResults = 8;

// An option that is no tensor and no shape: an integer or a float, or none.
struct Number {
  union {
    int64_t integer;
    double real;
  };
  bool is_real, given;

  Number() : integer(0), is_real(false), given(false) {}
  Number(int64_t value) : integer(value), is_real(false), given(true) {}
  Number(double value) : real(value), is_real(true), given(true) {}
};

// What a raw operator's arguments are taken from, one after the other.
struct Arguments {
  const Tensor* const* tensor;
  const Number* number;
  const std::vector<int64_t>* shape;
  const bool* need;
  TorchDevice device;

  template <class T>
  T next() {
    if constexpr (std::is_same_v<T, Tensor>)
      return **tensor++;
    else if constexpr (std::is_same_v<T, OptionalTensor>) {
      const Tensor* t = *tensor++;
      return t && t->defined() ? OptionalTensor(*t) : std::nullopt;
    } else if constexpr (std::is_same_v<T, double>)
      return (number++)->real;
    else if constexpr (std::is_same_v<T, std::optional<double>>) {
      const Number& n = *number++;
      return n.given ? std::optional<double>(n.real) : std::nullopt;
    } else if constexpr (std::is_same_v<T, bool>)
      return *need++;
    else if constexpr (std::is_same_v<T, std::vector<int64_t>>)
      return *shape++;
    else if constexpr (std::is_same_v<T, ScalarType>)
      return static_cast<ScalarType>((number++)->integer);
    else if constexpr (std::is_same_v<T, TorchDevice>)
      return device;
    else {
      static_assert(std::is_same_v<T, int64_t>, "a type that no signature has");
      return (number++)->integer;
    }
  }
};

using Results = std::array<Tensor, kMostResults>;
using Raw = void (*)(Arguments&, Results&);

template <auto function>
struct RawOf;
template <class Result, class... Args, Result (*function)(Args...)>
struct RawOf<function> {
  static void call(Arguments& from, Results& results) {
    // Braces: from left to right.
    std::tuple<Args...> args{from.next<Args>()...};
    Result made = std::apply(function, std::move(args));
    if constexpr (std::is_same_v<Result, Tensor>)
      results[0] = std::move(made);
    else
      std::apply(
          [&](auto&... each) {
            int k = 0;
            ((results[k++] = std::move(each)), ...);
          },
          made);
  }
};

struct RawOperator {
  const char* name;
  Raw forward, backward;
};

// An operator by its name; null where there is none.
const RawOperator* raw_operator(const char* name);

}  // namespace vae_fast
