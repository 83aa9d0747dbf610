// A value, or the reason why the packet it was to come from is dropped.
#ifndef CORE_BASE_OR_DROP_H_
#define CORE_BASE_OR_DROP_H_

#include <utility>
#include <variant>

#include "core/base/drop_reason.h"

namespace netstack {

//   OrDrop<Packet> p = ParsePacket(bytes, trust);
//   if (!p) return Drop(p.reason());
//   Use(*p);
template <typename T>
class [[nodiscard]] OrDrop {
 public:
  OrDrop(T value) : v_(std::move(value)) {}     // NOLINT: implicit by design
  OrDrop(DropReason reason) : v_(reason) {}     // NOLINT: implicit by design

  explicit operator bool() const { return v_.index() == 0; }
  // Only when true, and only when false, respectively.
  T& operator*() { return std::get<0>(v_); }
  const T& operator*() const { return std::get<0>(v_); }
  T* operator->() { return &std::get<0>(v_); }
  const T* operator->() const { return &std::get<0>(v_); }
  DropReason reason() const { return std::get<1>(v_); }

 private:
  std::variant<T, DropReason> v_;
};

}  // namespace netstack

#endif  // CORE_BASE_OR_DROP_H_
