// Native calls without the GIL, which survive the interpreter's end.
#pragma once
#include <atomic>

#include <pybind11/pybind11.h>
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
    main_ = PyThread_get_thread_ident();
    py::module_::import("atexit").attr("register")(py::cpp_function(&close));
    // The child has none of the threads that were inside.
    const py::cpp_function empty([] { inside_ = 0; });
    py::module_::import("os").attr("register_at_fork")(py::arg("after_in_child") = empty);
  }

  // Returns with the GIL; once the gate is closed, only to the thread that closed it.
  static void take_gil(PyThreadState* state) {
    if (PyThread_get_thread_ident() != main_) others_ = true;
    ++inside_;
    if (is_closed_to_me()) {
      --inside_;
      sleep();
    }
    PyEval_RestoreThread(state);
    --inside_;
    if (is_closed_to_me()) {  // since then: the thread must not wait for the GIL elsewhere either
      PyEval_SaveThread();
      sleep();
    }
  }

 private:
  static void close() {
    closed_by_ = PyThread_get_thread_ident();
    closed_ = true;
    PyThreadState* state = PyEval_SaveThread();  // for those inside
    // Torch has no such gate. Threads of ours that are inside it come here, or wait in Python, within this time.
    if (others_) ::usleep(kGraceUs);
    while (inside_ > 0) ::usleep(100);
    PyEval_RestoreThread(state);
  }

  static bool is_closed_to_me() { return closed_ && closed_by_ != PyThread_get_thread_ident(); }

  [[noreturn]] static void sleep() {
    while (true) ::pause();
  }

  static constexpr useconds_t kGraceUs = 100'000;

  inline static std::atomic<int> inside_ = 0;
  inline static std::atomic<bool> others_ = false;     // threads beside the main one have been here
  inline static std::atomic<unsigned long> main_ = 0;  // the thread that imported the module
  inline static std::atomic<bool> closed_ = false;
  inline static std::atomic<unsigned long> closed_by_ = 0;  // a thread's number
};

// Releases the GIL for its lifetime; in place of pybind11::gil_scoped_release everywhere.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() { GilGate::take_gil(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* const state_;
};

}  // namespace pass_loader
