/* What libstdc++ of GCC 12 and newer expects of a newer glibc than the wheels need. Linked into each extension, hidden. */
#include <pthread.h>
#include <stdint.h>
#include <sys/random.h>
#include <time.h>

/* 1 lets libstdc++ count references without atomic instructions, as long as there is one thread. */
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

/* For std::random_device. */
__attribute__((visibility("hidden"))) uint32_t arc4random(void) {
  uint32_t number = 0;
  while (getrandom(&number, sizeof number, 0) != sizeof number) {
  }
  return number;
}

/* As libstdc++ waits where glibc lacks this function: by the realtime clock, until the same moment. Its callers look at
   their own clock afterwards, and wait again. */
__attribute__((visibility("hidden"))) int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                                                                 clockid_t clock, const struct timespec* until) {
  struct timespec now, realtime;
  clock_gettime(clock, &now);
  clock_gettime(CLOCK_REALTIME, &realtime);
  realtime.tv_sec += until->tv_sec - now.tv_sec;
  realtime.tv_nsec += until->tv_nsec - now.tv_nsec;
  if (realtime.tv_nsec < 0) {
    realtime.tv_nsec += 1000000000;
    realtime.tv_sec -= 1;
  } else if (realtime.tv_nsec >= 1000000000) {
    realtime.tv_nsec -= 1000000000;
    realtime.tv_sec += 1;
  }
  return pthread_cond_timedwait(condition, mutex, &realtime);
}
