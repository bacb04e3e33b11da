// Native calls without the GIL, which survive the interpreter's end.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>

#include <pybind11/pybind11.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace pass_loader {

// Where threads take the GIL again. A daemon thread that waits for the GIL while the interpreter is finalised is ended
// by pthread_exit (Python before 3.14), which unwinds our frames and aborts the process. So no thread waits for it
// then: when the interpreter begins to exit, the gate lets out those inside and closes. Whoever comes later sleeps for
// ever, as threads of Python 3.14 do.
class GilGate {
 public:
  // Closes the gate at exit. To be called by each module: it has a gate of its own.
  static void close_at_exit() {
    namespace py = pybind11;
    py::module_::import("atexit").attr("register")(py::cpp_function(&close));
    // The child has none of the threads that were inside but its own.
    const py::cpp_function empty([] {
      inside_ = sections_;
      noted_ = 0;
      ++generation_;
    });
    py::module_::import("os").attr("register_at_fork")(py::arg("after_in_child") = empty);
  }

  // Releases the GIL. A section waits meanwhile: the exit need not wait for its thread.
  static PyThreadState* release_gil() {
    inside_ -= sections_;
    return PyEval_SaveThread();
  }

  // Returns with the GIL; once the gate is closed, only to the thread that closed it.
  static void take_gil(PyThreadState* state) {
    note_thread();
    ++inside_;
    if (is_closed_to_me()) {
      --inside_;
      sleep();
    }
    PyEval_RestoreThread(state);
    inside_ += sections_ - 1;
    stop_if_closed();
  }

  // A section is a part of a thread's work in which others, torch above all, release the GIL and take it again. The
  // exit waits for its end. To be called with the GIL. In a section a thread must not wait for another one.
  static void enter_section() {
    stop_if_closed();
    note_thread();
    ++sections_;
    ++inside_;
  }

  static void leave_section() {
    --sections_;
    --inside_;
    stop_if_closed();
  }

 private:
  static void close() {
    closed_by_ = PyThread_get_thread_ident();
    closed_ = true;
    PyThreadState* state = PyEval_SaveThread();  // for those inside
    // Torch releases the GIL also where a thread of the user drops a tensor. So the exit waits until all that have been
    // here are at rest: asleep, in this gate or in Python. On a loaded machine those that wait for a processor are not.
    for (int quiet = 0, looks = 0; quiet < 3 && looks < kMostLooks; ++looks) {
      quiet = inside_ == 0 && all_are_asleep() ? quiet + 1 : 0;
      if (quiet < 3) ::usleep(kLookUs);
    }
    while (inside_ > 0) ::usleep(100);
    PyEval_RestoreThread(state);
  }

  // Notes the thread, once, as one that may be in torch at the exit.
  static void note_thread() {
    if (noted_in_ == generation_) return;
    noted_in_ = generation_;
    threads_[noted_++ % threads_.size()] = static_cast<pid_t>(::syscall(SYS_gettid));
  }

  // Tells whether all noted threads but this one sleep, or have ended (proc(5), /proc/[pid]/stat).
  static bool all_are_asleep() {
    const pid_t self = static_cast<pid_t>(::syscall(SYS_gettid));
    for (size_t i = 0; i < std::min<size_t>(noted_, threads_.size()); ++i) {
      const pid_t thread = threads_[i];
      char path[64], line[256];
      std::snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
      std::FILE* file = thread == self ? nullptr : std::fopen(path, "re");
      if (file == nullptr) continue;
      const size_t size = std::fread(line, 1, sizeof line - 1, file);
      std::fclose(file);
      line[size] = '\0';
      const char* name_end = std::strrchr(line, ')');
      if (name_end != nullptr && std::strlen(name_end) > 2 && std::strchr("RD", name_end[2]) != nullptr) return false;
    }
    return true;
  }

  static bool is_closed_to_me() { return closed_ && closed_by_ != PyThread_get_thread_ident(); }

  // Stops the thread, which has the GIL, for ever if the gate was closed: it must not wait for the GIL elsewhere
  // either.
  static void stop_if_closed() {
    if (!is_closed_to_me()) return;
    inside_ -= sections_;
    PyEval_SaveThread();
    sleep();
  }

  [[noreturn]] static void sleep() {
    while (true) ::pause();
  }

  static constexpr useconds_t kLookUs = 2'000;
  static constexpr int kMostLooks = 1'000;  // for a thread that works on and on without us

  inline static std::atomic<int> inside_ = 0;                    // threads at the gate, and sections
  inline static thread_local int sections_ = 0;                  // of this thread
  inline static std::array<std::atomic<pid_t>, 256> threads_{};  // the last that have been here
  inline static std::atomic<size_t> noted_ = 0;
  inline static std::atomic<int> generation_ = 0;  // of forks: a child has threads of its own
  inline static thread_local int noted_in_ = -1;   // the generation
  inline static std::atomic<bool> closed_ = false;
  inline static std::atomic<unsigned long> closed_by_ = 0;  // a thread's number
};

// Releases the GIL for its lifetime; in place of pybind11::gil_scoped_release everywhere.
class WithoutGil {
 public:
  WithoutGil() : state_(GilGate::release_gil()) {}
  ~WithoutGil() { GilGate::take_gil(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* const state_;
};

}  // namespace pass_loader
