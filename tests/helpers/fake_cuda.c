// A libcuda.so.1 without a GPU, for tests of launches: it loads any binary, and writes down what is launched.
//
// A binary is the number of a kernel's parameters, an int32; each of them is 8 bytes. Contexts are devices' numbers + 1.
// Every thread has its own current one, and its own record.

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { kMostParameters = 128 };

typedef struct {
  int32_t parameters;
} Kernel;

typedef struct {
  // The launch's count from 1, what it ran on, and what it was given.
  uint64_t count, context, stream, function;
  uint32_t grid[3], threads, shared, parameters;
  uint64_t values[kMostParameters];
} Launch;

// As much of the driver's own record as is read.
typedef struct {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared;
  void* stream;
} Config;

static __thread uint64_t current = 1;
static __thread uint64_t count = 0;
static __thread Launch last;
static int recording = 1;

// The calling thread's, valid until its next one.
const Launch* fake_last_launch(void) {
  return &last;
}

// Without a record a launch does nothing, for measurements.
void fake_record(int wanted) {
  recording = wanted;
}

void fake_set_device(int device) {
  current = (uint64_t)device + 1;
}

int cuLaunchKernelEx(const Config* config, const Kernel* kernel, void** parameters, void** extra) {
  (void)extra;
  last.count = ++count;
  if (!recording) {
    return 0;
  }
  last.context = current;
  last.stream = (uint64_t)config->stream;
  last.function = (uint64_t)kernel;
  last.grid[0] = config->grid_x;
  last.grid[1] = config->grid_y;
  last.grid[2] = config->grid_z;
  last.threads = config->block_x;
  last.shared = config->shared;
  last.parameters = (uint32_t)kernel->parameters;
  for (int k = 0; k < kernel->parameters && k < kMostParameters; ++k) {
    memcpy(&last.values[k], parameters[k], sizeof(uint64_t));
  }
  return 0;
}

int cuDeviceGetCount(int* devices) {
  *devices = 1;
  return 0;
}

int cuInit(unsigned flags) {
  (void)flags;
  return 0;
}

int cuGetErrorString(int code, const char** text) {
  (void)code;
  *text = "an error of the fake driver";
  return 0;
}

int cuCtxGetCurrent(void** context) {
  *context = (void*)current;
  return 0;
}

int cuCtxSetCurrent(void* context) {
  current = (uint64_t)context;
  return 0;
}

int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return 0;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = (void*)((uint64_t)device + 1);
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
  (void)attribute;
  (void)device;
  *value = 65536;
  return 0;
}

int cuModuleLoadData(void** module, const void* image) {
  *module = (void*)image;
  return 0;
}

int cuModuleUnload(void* module) {
  (void)module;
  return 0;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  (void)name;
  *function = module;
  return 0;
}

int cuFuncGetAttribute(int* value, int attribute, void* function) {
  (void)attribute;
  (void)function;
  *value = 1024;
  return 0;
}

int cuFuncSetAttribute(void* function, int attribute, int value) {
  (void)function;
  (void)attribute;
  (void)value;
  return 0;
}

int cuFuncSetCacheConfig(void* function, int config) {
  (void)function;
  (void)config;
  return 0;
}

int cuPointerGetAttribute(uint64_t* value, int attribute, uint64_t pointer) {
  (void)attribute;
  *value = pointer;
  return 0;
}

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}

int cuCtxGetDevice(int* device) {
  *device = (int)current - 1;
  return 0;
}

int cuCtxGetLimit(size_t* value, int limit) {
  (void)limit;
  *value = 0;
  return 0;
}

int cuCtxSetLimit(int limit, size_t value) {
  (void)limit;
  (void)value;
  return 0;
}

int cuStreamIsCapturing(void* stream, int* status) {
  (void)stream;
  *status = 0;
  return 0;
}
