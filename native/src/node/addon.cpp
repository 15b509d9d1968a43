/**
 * The Node-API surface, and nothing else: arguments in, jobs to threads, promises and progress out. src/workers/device/native.ts is its only caller
 * and gives the types.
 *
 * Threads: JavaScript's never waits for a driver. Each device has one thread for copies and one for everything short (allocate, release,
 * figures), so that an allocation does not wait behind a long copy. They answer through one thread-safe function per environment object,
 * because calling one of an environment that has ended aborts the process: the clean-up hook is registered after it, therefore runs before
 * it is torn down, cancels what runs and joins the threads.
 *
 * An object with jobs under way refers to itself, else it could be collected in the middle of a copy.
 */
#include "backends/directml.hpp"
#include "core/error.hpp"
#include "core/memory.hpp"
#include "core/thread.hpp"
#include <cmath>
#include <map>
#include <napi.h>

using namespace darkroom;

namespace {

Napi::Error wrapped(Napi::Env env, const Error& error) {
  Napi::Error made = Napi::Error::New(env, error.what());
  made.Set("code", error.code);
  if (error.native != 0) made.Set("native", static_cast<double>(error.native));
  return made;
}

/** What a core function throws becomes a JavaScript error with its code. */
template <typename Call> auto translated(Napi::Env env, Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const Error& error) {
    throw wrapped(env, error);
  }
}

constexpr double largestSafeInteger = 9007199254740991.0;

/** @throws Error `DR_INVALID` for anything but a whole number from 0 to 2^53 - 1: Node-API itself would make 0 of NaN and wrap others */
std::uint64_t whole(const Napi::Value& value, const char* name) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (!(number >= 0 && number <= largestSafeInteger) || number != std::floor(number))
    throw Error("DR_INVALID", std::string(name) + " must be a whole number of at least 0");
  return static_cast<std::uint64_t>(number);
}

std::optional<std::uint64_t> wholeOrNull(const Napi::Value& value, const char* name) {
  if (value.IsNull() || value.IsUndefined()) return std::nullopt;
  return whole(value, name);
}

std::string text(const Napi::Value& value, const char* name) {
  if (!value.IsString()) throw Error("DR_INVALID", std::string(name) + " must be a string");
  return value.As<Napi::String>().Utf8Value();
}

/** A name's place in a list. */
unsigned choice(const Napi::Value& value, const char* name, std::initializer_list<const char*> names) {
  const std::string chosen = text(value, name);
  unsigned index = 0;
  for (const char* each : names) {
    if (chosen == each) return index;
    index++;
  }
  throw Error("DR_INVALID", std::string(name) + " cannot be '" + chosen + "'");
}

Kind kindOf(const Napi::Value& value) { return static_cast<Kind>(choice(value, "kind", {"device", "upload", "readback"})); }

const char* const kindNames[] = {"device", "upload", "readback"};

template <typename T> Napi::Value orNull(Napi::Env env, const std::optional<T>& value) {
  if (!value) return env.Null();
  if constexpr (std::is_same_v<T, std::string>) return Napi::String::New(env, *value);
  else if constexpr (std::is_same_v<T, bool>) return Napi::Boolean::New(env, *value);
  else return Napi::Number::New(env, static_cast<double>(*value));
}

Napi::Object objectOf(Napi::Env env, const DeviceInfo& info) {
  Napi::Object capabilities = Napi::Object::New(env);
  capabilities.Set("computeCapability", orNull(env, info.capabilities.computeCapability));
  capabilities.Set("featureLevel", orNull(env, info.capabilities.featureLevel));
  capabilities.Set("driver", orNull(env, info.capabilities.driver));
  capabilities.Set("pci", orNull(env, info.capabilities.pci));
  capabilities.Set("unified", orNull(env, info.capabilities.unified));
  Napi::Object object = Napi::Object::New(env);
  object.Set("key", info.key);
  object.Set("name", info.name);
  object.Set("backend", info.backend);
  object.Set("uuid", orNull(env, info.uuid));
  object.Set("luid", orNull(env, info.luid));
  object.Set("software", info.software);
  object.Set("capabilities", capabilities);
  return object;
}

Napi::Object objectOf(Napi::Env env, const Figures& figures) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("total", orNull(env, figures.total));
  object.Set("budget", orNull(env, figures.budget));
  object.Set("used", orNull(env, figures.used));
  object.Set("usedIsOwn", figures.usedIsOwn);
  object.Set("source", figures.source);
  return object;
}

Napi::Object objectOf(Napi::Env env, const Vitals& vitals) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("utilization", orNull(env, vitals.utilization));
  object.Set("memoryUtilization", orNull(env, vitals.memoryUtilization));
  object.Set("temperature", orNull(env, vitals.temperature));
  object.Set("power", orNull(env, vitals.power));
  object.Set("powerLimit", orNull(env, vitals.powerLimit));
  object.Set("clock", orNull(env, vitals.clock));
  object.Set("memoryClock", orNull(env, vitals.memoryClock));
  object.Set("source", vitals.source);
  return object;
}

Napi::Object objectOf(Napi::Env env, const Usage& usage) {
  const auto number = [&](std::uint64_t value) { return Napi::Number::New(env, static_cast<double>(value)); };
  Napi::Object object = Napi::Object::New(env);
  object.Set("live", number(usage.live));
  object.Set("tracked", number(usage.tracked));
  object.Set("reserved", number(usage.reserved));
  object.Set("pinned", number(usage.pinned));
  object.Set("peak", number(usage.peak));
  object.Set("limit", orNull(env, usage.limit));
  object.Set("created", number(usage.created));
  object.Set("released", number(usage.released));
  object.Set("expired", number(usage.expired));
  object.Set("arenas", number(usage.arenas));
  object.Set("fragmentation", usage.fragmentation);
  object.Set("largestHole", number(usage.largestHole));
  object.Set("lost", usage.lost);
  return object;
}

Napi::Object objectOf(Napi::Env env, const AllocationInfo& info) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("id", static_cast<double>(info.id));
  object.Set("device", static_cast<double>(info.device));
  object.Set("bytes", static_cast<double>(info.bytes));
  object.Set("kind", kindNames[static_cast<unsigned>(info.kind)]);
  object.Set("placement", info.placed ? "placed" : "committed");
  object.Set("owner", info.owner);
  object.Set("ageMs", static_cast<double>(info.age.count()));
  object.Set("timeLeftMs", info.timeLeft ? Napi::Value(Napi::Number::New(env, static_cast<double>(info.timeLeft->count()))) : env.Null());
  object.Set("inUse", info.inUse);
  return object;
}

Napi::Array arrayOf(Napi::Env env, const std::vector<AllocationInfo>& all) {
  Napi::Array array = Napi::Array::New(env, all.size());
  for (std::uint32_t index = 0; index < all.size(); index++) array.Set(index, objectOf(env, all[index]));
  return array;
}

Napi::Object objectOf(Napi::Env env, const Compaction& compaction) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("moves", static_cast<double>(compaction.moves));
  object.Set("bytesMoved", static_cast<double>(compaction.bytesMoved));
  object.Set("bytesCopied", static_cast<double>(compaction.bytesCopied));
  object.Set("arenasFreed", static_cast<double>(compaction.arenasFreed));
  object.Set("before", compaction.before);
  object.Set("after", compaction.after);
  return object;
}

/** What JavaScript gets when the work is done; made on its thread. */
using Answer = std::function<Napi::Value(Napi::Env)>;
using Work = std::function<Answer(Control&)>;

struct Job {
  explicit Job(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}
  Control control;
  Work work;
  Answer answer;
  std::optional<Error> error;
  Napi::Promise::Deferred deferred;
  Napi::Reference<Napi::Value> keep; // the view whose bytes are copied
  Napi::FunctionReference progress;
};

/** The memory, its threads and the jobs under way; outlives its JavaScript object while an answer is on its way. */
class Engine : public std::enable_shared_from_this<Engine> {
public:
  Engine(Napi::Env env, std::unique_ptr<Memory> memory) : memory(std::move(memory)), env_(env) {}

  void start() {
    answers_ = Napi::ThreadSafeFunction::New(env_, Napi::Function(), "darkroom-native", 0, 1);
    answers_.Unref(env_); // an idle memory keeps no process alive
    napi_add_env_cleanup_hook(env_, atEnvironmentsEnd, this);
    for (std::size_t device = 0; device < memory->devices(); device++) {
      copying_.push_back(std::make_unique<JobThread>());
      serving_.push_back(std::make_unique<JobThread>());
    }
  }

  /** @param number by which `cancel` finds the job, 0: by none */
  Napi::Value submit(bool isCopy, std::size_t device, std::uint64_t number, Work work, Napi::Value keep, Napi::Value progress) {
    if (hasStopped_) throw Error("DR_CLOSED", "the memory is closed");
    auto job = std::make_unique<Job>(env_);
    job->work = std::move(work);
    if (keep.IsObject()) job->keep = Napi::Persistent(keep);
    if (progress.IsFunction()) {
      job->progress = Napi::Persistent(progress.As<Napi::Function>());
      job->control.progress = [this, raw = job.get()](std::uint64_t done, std::uint64_t total) { tell({raw, done, total, false}); };
    }
    Job* raw = job.get();
    if (jobs_.empty()) {
      answers_.Ref(env_);
      if (holdSelf) holdSelf(true);
    }
    jobs_.emplace(raw, std::pair(std::move(job), number));
    (isCopy ? copying_ : serving_)[device]->post([this, raw] { run(*raw); });
    return raw->deferred.Promise();
  }

  void cancel(std::uint64_t number) {
    for (auto& [raw, entry] : jobs_)
      if (entry.second == number) raw->control.cancelled = true;
  }

  void cancelAll() {
    for (auto& [raw, entry] : jobs_) raw->control.cancelled = true;
  }

  /** On JavaScript's thread: cancels, joins, releases. What is still to be told is told no more. */
  void stop() {
    if (std::exchange(hasStopped_, true)) return;
    napi_remove_env_cleanup_hook(env_, atEnvironmentsEnd, this);
    cancelAll();
    copying_.clear();
    serving_.clear();
    memory->close();
    jobs_.clear();
    answers_.Release();
  }

  std::unique_ptr<Memory> memory;
  /** Makes the JavaScript object stay, or lets it go. */
  std::function<void(bool)> holdSelf;
  bool isClosing = false;

private:
  struct Event {
    Job* job;
    std::uint64_t done;
    std::uint64_t total;
    bool isEnd;
  };

  static void atEnvironmentsEnd(void* engine) { static_cast<Engine*>(engine)->stop(); }

  void run(Job& job) {
    try {
      job.answer = job.work(job.control);
    } catch (const Error& error) {
      job.error = error;
    } catch (const std::exception& error) {
      job.error = Error("DR_DRIVER", error.what());
    }
    tell({&job, 0, 0, true});
  }

  /** On a thread of ours. */
  void tell(const Event& event) {
    auto* sent = new std::pair(shared_from_this(), event);
    const napi_status status = answers_.BlockingCall(sent, [](Napi::Env env, Napi::Function, decltype(sent) received) {
      const std::unique_ptr<std::remove_pointer_t<decltype(received)>> owned(received);
      if (env != nullptr) owned->first->receive(env, owned->second);
    });
    if (status != napi_ok) delete sent;
  }

  void receive(Napi::Env env, const Event& event) {
    // Settling promises of an environment that ends would count as unhandled rejections and change the exit code.
    if (hasStopped_) return;
    const Napi::HandleScope scope(env);
    try {
      const auto found = jobs_.find(event.job);
      if (!event.isEnd) {
        event.job->progress.Call({Napi::Number::New(env, static_cast<double>(event.done)),
                                  Napi::Number::New(env, static_cast<double>(event.total))});
        return;
      }
      const std::unique_ptr<Job> job = std::move(found->second.first);
      jobs_.erase(found);
      if (job->error) job->deferred.Reject(wrapped(env, *job->error).Value());
      else job->deferred.Resolve(job->answer ? job->answer(env) : env.Undefined());
      if (!jobs_.empty()) return;
      answers_.Unref(env);
      if (isClosing) stop();
      if (holdSelf) holdSelf(false);
    } catch (const Napi::Error&) {
      // The environment is ending, or a progress callback threw although native.ts wraps it: an exception must not leave a C callback.
    }
  }

  Napi::Env env_;
  Napi::ThreadSafeFunction answers_;
  std::map<Job*, std::pair<std::unique_ptr<Job>, std::uint64_t>> jobs_; // JavaScript's thread only
  std::vector<std::unique_ptr<JobThread>> copying_;
  std::vector<std::unique_ptr<JobThread>> serving_;
  bool hasStopped_ = false; // JavaScript's thread only
};

/** JavaScript's `NativeMemory`. Made by `open` alone. */
class NativeMemory : public Napi::ObjectWrap<NativeMemory> {
public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "NativeMemory",
                       {
                           InstanceMethod<&NativeMemory::devices>("devices"),
                           InstanceMethod<&NativeMemory::figures>("figures"),
                           InstanceMethod<&NativeMemory::vitals>("vitals"),
                           InstanceMethod<&NativeMemory::usage>("usage"),
                           InstanceMethod<&NativeMemory::setLimit>("setLimit"),
                           InstanceMethod<&NativeMemory::allocate>("allocate"),
                           InstanceMethod<&NativeMemory::release>("release"),
                           InstanceMethod<&NativeMemory::releaseOwner>("releaseOwner"),
                           InstanceMethod<&NativeMemory::renew>("renew"),
                           InstanceMethod<&NativeMemory::expire>("expire"),
                           InstanceMethod<&NativeMemory::inspect>("inspect"),
                           InstanceMethod<&NativeMemory::list>("list"),
                           InstanceMethod<&NativeMemory::write>("write"),
                           InstanceMethod<&NativeMemory::read>("read"),
                           InstanceMethod<&NativeMemory::copy>("copy"),
                           InstanceMethod<&NativeMemory::checksum>("checksum"),
                           InstanceMethod<&NativeMemory::defragment>("defragment"),
                           InstanceMethod<&NativeMemory::trim>("trim"),
                           InstanceMethod<&NativeMemory::cancel>("cancel"),
                           InstanceMethod<&NativeMemory::close>("close"),
                       });
  }

  explicit NativeMemory(const Napi::CallbackInfo& info) : Napi::ObjectWrap<NativeMemory>(info) {
    if (!info[0].IsExternal()) throw Napi::TypeError::New(info.Env(), "open() makes these");
    auto* memory = info[0].As<Napi::External<std::unique_ptr<Memory>>>().Data();
    engine_ = std::make_shared<Engine>(info.Env(), std::move(*memory));
    engine_->holdSelf = [this](bool isHeld) {
      if (isHeld) Ref();
      else Unref();
    };
    engine_->start();
  }
  ~NativeMemory() override {
    if (!engine_) return;
    engine_->holdSelf = nullptr;
    engine_->stop();
  }

private:
  using Info = Napi::CallbackInfo;

  Memory& memory() { return *engine_->memory; }

  std::size_t device(const Napi::Value& value) {
    const std::uint64_t index = whole(value, "device");
    memory().info(index); // refuses one that is not there
    return index;
  }

  Napi::Value serve(std::size_t device, Work work) { return engine_->submit(false, device, 0, std::move(work), {}, {}); }

  Napi::Value devices(const Info& info) {
    Napi::Array array = Napi::Array::New(info.Env(), memory().devices());
    for (std::uint32_t index = 0; index < memory().devices(); index++) array.Set(index, objectOf(info.Env(), memory().info(index)));
    return array;
  }

  Napi::Value figures(const Info& info) {
    return translated(info.Env(), [&] {
      return serve(device(info[0]), [&memory = memory(), at = device(info[0])](Control&) -> Answer {
        return [figures = memory.figures(at)](Napi::Env env) { return objectOf(env, figures); };
      });
    });
  }

  Napi::Value vitals(const Info& info) {
    return translated(info.Env(), [&] {
      return serve(device(info[0]), [&memory = memory(), at = device(info[0])](Control&) -> Answer {
        return [vitals = memory.vitals(at)](Napi::Env env) { return objectOf(env, vitals); };
      });
    });
  }

  Napi::Value usage(const Info& info) {
    return translated(info.Env(), [&] { return objectOf(info.Env(), memory().usage(device(info[0]))); });
  }

  void setLimit(const Info& info) {
    translated(info.Env(), [&] { memory().setLimit(device(info[0]), wholeOrNull(info[1], "limit")); });
  }

  /** device, bytes, kind, placement, owner, timeToLiveMs or null */
  Napi::Value allocate(const Info& info) {
    return translated(info.Env(), [&] {
      Request request;
      request.device = device(info[0]);
      request.bytes = whole(info[1], "bytes");
      request.kind = kindOf(info[2]);
      request.placement = static_cast<Placement>(choice(info[3], "placement", {"automatic", "committed", "placed"}));
      request.owner = text(info[4], "owner");
      if (const auto ms = wholeOrNull(info[5], "timeToLiveMs")) request.timeToLive = std::chrono::milliseconds(*ms);
      return serve(request.device, [&memory = memory(), request](Control&) -> Answer {
        return [made = memory.inspect(memory.allocate(request))](Napi::Env env) { return objectOf(env, made); };
      });
    });
  }

  Napi::Value release(const Info& info) {
    return translated(info.Env(), [&] {
      const std::uint64_t id = whole(info[0], "id");
      return serve(memory().inspect(id).device, [&memory = memory(), id](Control&) -> Answer {
        memory.release(id);
        return nullptr;
      });
    });
  }

  Napi::Value releaseOwner(const Info& info) {
    return translated(info.Env(), [&] {
      return serve(0, [&memory = memory(), owner = text(info[0], "owner")](Control&) -> Answer {
        return [gone = memory.releaseOwner(owner)](Napi::Env env) { return arrayOf(env, gone); };
      });
    });
  }

  void renew(const Info& info) {
    translated(info.Env(), [&] {
      std::optional<std::chrono::milliseconds> timeToLive;
      if (const auto ms = wholeOrNull(info[1], "timeToLiveMs")) timeToLive = std::chrono::milliseconds(*ms);
      memory().renew(whole(info[0], "id"), timeToLive);
    });
  }

  Napi::Value expire(const Info& info) {
    return translated(info.Env(), [&] {
      return serve(0, [&memory = memory()](Control&) -> Answer {
        return [gone = memory.expire()](Napi::Env env) { return arrayOf(env, gone); };
      });
    });
  }

  Napi::Value inspect(const Info& info) {
    return translated(info.Env(), [&] { return objectOf(info.Env(), memory().inspect(whole(info[0], "id"))); });
  }

  Napi::Value list(const Info& info) { return arrayOf(info.Env(), memory().list()); }

  struct View {
    char* data;
    std::uint64_t bytes;
  };
  static View viewOf(const Napi::Value& value) {
    if (!value.IsTypedArray()) throw Error("DR_INVALID", "the bytes must be a typed array");
    const auto array = value.As<Napi::TypedArray>();
    return {static_cast<char*>(array.ArrayBuffer().Data()) + array.ByteOffset(), array.ByteLength()};
  }

  /** job, id, at, view, verify, progress or null */
  Napi::Value write(const Info& info) {
    return translated(info.Env(), [&] {
      const std::uint64_t id = whole(info[1], "id");
      const auto work = [&memory = memory(), id, at = whole(info[2], "at"), view = viewOf(info[3]),
                         verify = info[4].ToBoolean().Value()](Control& control) -> Answer {
        memory.write(id, at, view.data, view.bytes, control, verify);
        return nullptr;
      };
      return engine_->submit(true, memory().inspect(id).device, whole(info[0], "job"), work, info[3], info[5]);
    });
  }

  /** job, id, at, view, verify, progress or null */
  Napi::Value read(const Info& info) {
    return translated(info.Env(), [&] {
      const std::uint64_t id = whole(info[1], "id");
      const auto work = [&memory = memory(), id, at = whole(info[2], "at"), view = viewOf(info[3]),
                         verify = info[4].ToBoolean().Value()](Control& control) -> Answer {
        memory.read(id, at, view.data, view.bytes, control, verify);
        return nullptr;
      };
      return engine_->submit(true, memory().inspect(id).device, whole(info[0], "job"), work, info[3], info[5]);
    });
  }

  /** job, from, fromAt, to, at, bytes, verify, progress or null */
  Napi::Value copy(const Info& info) {
    return translated(info.Env(), [&] {
      const std::uint64_t from = whole(info[1], "from");
      const auto work = [&memory = memory(), from, fromAt = whole(info[2], "fromAt"), to = whole(info[3], "to"), at = whole(info[4], "at"),
                         bytes = whole(info[5], "bytes"), verify = info[6].ToBoolean().Value()](Control& control) -> Answer {
        memory.copy(from, fromAt, to, at, bytes, control, verify);
        return nullptr;
      };
      return engine_->submit(true, memory().inspect(from).device, whole(info[0], "job"), work, {}, info[7]);
    });
  }

  /** job, id, at, bytes, progress or null */
  Napi::Value checksum(const Info& info) {
    return translated(info.Env(), [&] {
      const std::uint64_t id = whole(info[1], "id");
      const auto work = [&memory = memory(), id, at = whole(info[2], "at"), bytes = whole(info[3], "bytes")](Control& control) -> Answer {
        return [sum = memory.checksum(id, at, bytes, control)](Napi::Env env) { return Napi::Number::New(env, sum); };
      };
      return engine_->submit(true, memory().inspect(id).device, whole(info[0], "job"), work, {}, info[4]);
    });
  }

  /** job, device, maxBytes, progress or null */
  Napi::Value defragment(const Info& info) {
    return translated(info.Env(), [&] {
      const auto work = [&memory = memory(), at = device(info[1]), maxBytes = whole(info[2], "maxBytes")](Control& control) -> Answer {
        return [done = memory.defragment(at, maxBytes, control)](Napi::Env env) { return objectOf(env, done); };
      };
      return engine_->submit(true, device(info[1]), whole(info[0], "job"), work, {}, info[3]);
    });
  }

  Napi::Value trim(const Info& info) {
    return translated(info.Env(), [&] {
      return engine_->submit(true, device(info[0]), 0,
                             [&memory = memory(), at = device(info[0])](Control&) -> Answer {
                               memory.trim(at);
                               return nullptr;
                             },
                             {}, {});
    });
  }

  void cancel(const Info& info) {
    translated(info.Env(), [&] { engine_->cancel(whole(info[0], "job")); });
  }

  Napi::Value close(const Info& info) {
    return translated(info.Env(), [&] {
      engine_->cancelAll();
      const Napi::Value promise = serve(0, [&memory = memory()](Control&) -> Answer {
        return [leaks = memory.close()](Napi::Env env) { return arrayOf(env, leaks); };
      });
      engine_->isClosing = true;
      return promise;
    });
  }

  std::shared_ptr<Engine> engine_;
};

/** Starting a driver takes a quarter of a second, so it happens on a thread of libuv's. */
class Opening : public Napi::AsyncWorker {
public:
  Opening(Napi::Env env, std::string backend, std::uint64_t arenaBytes)
      : Napi::AsyncWorker(env), deferred(Napi::Promise::Deferred::New(env)), backend_(std::move(backend)), arenaBytes_(arenaBytes) {}

  void Execute() override {
    try {
      memory_ = std::make_unique<Memory>(openBackend(backend_), arenaBytes_);
    } catch (const Error& error) {
      error_ = error;
    }
  }
  void OnOK() override {
    const Napi::HandleScope scope(Env());
    try {
      if (error_) return deferred.Reject(wrapped(Env(), *error_).Value());
      auto* constructor = Env().GetInstanceData<Napi::FunctionReference>();
      deferred.Resolve(constructor->New({Napi::External<std::unique_ptr<Memory>>::New(Env(), &memory_)}));
    } catch (const Napi::Error&) { // the environment is ending
    }
  }

  Napi::Promise::Deferred deferred;

private:
  std::string backend_;
  std::uint64_t arenaBytes_;
  std::unique_ptr<Memory> memory_;
  std::optional<Error> error_;
};

/** backend, arenaBytes or null */
Napi::Value open(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&]() -> Napi::Value {
    const std::uint64_t arenaBytes = wholeOrNull(info[1], "arenaBytes").value_or(64ull << 20);
    if (arenaBytes == 0) throw Error("DR_INVALID", "arenaBytes must be at least 1");
    auto* opening = new Opening(info.Env(), text(info[0], "backend"), arenaBytes);
    opening->Queue();
    return opening->deferred.Promise();
  });
}

Napi::Value probe(const Napi::CallbackInfo& info) {
  const DirectMl found = probeDirectMl();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("isHere", found.isHere);
  object.Set("detail", found.detail);
  return object;
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Napi::FunctionReference(Napi::Persistent(NativeMemory::define(env))));
  const std::vector<std::string> names = backends();
  Napi::Array array = Napi::Array::New(env, names.size());
  for (std::uint32_t index = 0; index < names.size(); index++) array.Set(index, names[index]);
  exports.Set("backends", array);
  exports.Set("open", Napi::Function::New<open>(env));
  exports.Set("probeDirectMl", Napi::Function::New<probe>(env));
  return exports;
}

} // namespace

NODE_API_MODULE(darkroom_native, initialise)
