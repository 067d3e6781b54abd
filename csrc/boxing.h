// A function as the dispatcher calls it, whose lists may be None, which stands for an empty one: AOTInductor passes
// those so.
#pragma once

#include <torch/csrc/stable/library.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace vae_fast {

using Sizes = std::vector<int64_t>;

template <class T>
struct Boxed {
  using type = T;
  static T plain(T&& value) { return std::move(value); }
};
template <>
struct Boxed<Sizes> {
  using type = std::optional<Sizes>;
  static Sizes plain(type&& value) { return value ? std::move(*value) : Sizes(); }
};

template <auto function>
struct Nullable;
template <class Result, class... Args, Result (*function)(Args...)>
struct Nullable<function> {
  static Result call(typename Boxed<Args>::type... args) { return function(Boxed<Args>::plain(std::move(args))...); }
};

}  // namespace vae_fast

#define VF_BOX(function) TORCH_BOX(&vae_fast::Nullable<&vae_fast::function>::call)
