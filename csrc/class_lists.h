// Segments listed by class.
#pragma once

#include <cstdint>
#include <vector>

namespace fastdd {

// The segments of class c are members[starts[c]] .. members[starts[c + 1]], in rising order. A negative class is no class:
// its segment is in no list.
struct ClassLists {
  std::vector<int64_t> starts, members;

  ClassLists(const int64_t* classes, int64_t segments, int64_t num_classes) : starts(num_classes + 1, 0) {
    for (int64_t s = 0; s < segments; ++s) {
      if (classes[s] >= 0) ++starts[classes[s] + 1];
    }
    for (int64_t c = 0; c < num_classes; ++c) starts[c + 1] += starts[c];
    members.resize(starts[num_classes]);
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    for (int64_t s = 0; s < segments; ++s) {
      if (classes[s] >= 0) members[next[classes[s]]++] = s;
    }
  }
};

}  // namespace fastdd
