// netstack.client.EmbeddedEngine on top of clients/embed/netstack.h.
#include <jni.h>

#include <memory>
#include <string>

#include "netstack.h"

namespace {

// One running service; Kotlin keeps it as a number.
struct Engine {
  JavaVM* vm = nullptr;
  jobject self = nullptr;  // a global reference to the EmbeddedEngine
  jmethodID protect = nullptr;
  netstack_service* service = nullptr;
};

// The JNIEnv of the calling thread, which is made Java's for as long as it
// lives: the loop thread asks again for every socket.
JNIEnv* Attach(JavaVM* vm) {
  struct Attached {
    explicit Attached(JavaVM* of) : vm(of) {
#ifdef __ANDROID__
      vm->AttachCurrentThreadAsDaemon(&env, nullptr);
#else
      vm->AttachCurrentThreadAsDaemon(reinterpret_cast<void**>(&env), nullptr);
#endif
    }
    ~Attached() {
      if (env != nullptr) vm->DetachCurrentThread();
    }
    JavaVM* vm;
    JNIEnv* env = nullptr;
  };
  thread_local Attached attached(vm);
  return attached.env;
}

// 0: protected. On the loop thread.
int Protect(void* context, int fd) {
  const auto* engine = static_cast<Engine*>(context);
  JNIEnv* env = Attach(engine->vm);
  if (env == nullptr) return -1;
  const jboolean yes =
      env->CallBooleanMethod(engine->self, engine->protect, fd);
  if (env->ExceptionCheck()) {  // what it throws is a no
    env->ExceptionClear();
    return -1;
  }
  return yes == JNI_TRUE ? 0 : -1;
}

std::string ToString(JNIEnv* env, jstring text) {
  const char* chars = env->GetStringUTFChars(text, nullptr);
  if (chars == nullptr) return "";
  std::string result = chars;
  env->ReleaseStringUTFChars(text, chars);
  return result;
}

}  // namespace

extern "C" JNIEXPORT jlong JNICALL
Java_netstack_client_EmbeddedEngine_nativeStart(JNIEnv* env, jobject self,
                                                jstring control,
                                                jstring config) {
  auto engine = std::make_unique<Engine>();
  env->GetJavaVM(&engine->vm);
  engine->protect = env->GetMethodID(env->GetObjectClass(self),
                                     "protectDescriptor", "(I)Z");
  if (engine->protect == nullptr) return 0;  // NoSuchMethodError is pending
  const std::string path = ToString(env, control);
  const std::string text = ToString(env, config);

  netstack_options options;
  netstack_options_init(&options);
  options.socket_path = path.c_str();
  if (!text.empty()) options.config = text.c_str();
  options.context = engine.get();
  options.protect = Protect;
  engine->self = env->NewGlobalRef(self);
  char why[256] = "";
  if (netstack_start(&options, &engine->service, why, sizeof(why)) !=
      NETSTACK_OK) {
    env->DeleteGlobalRef(engine->self);
    env->ThrowNew(env->FindClass("java/io/IOException"), why);
    return 0;
  }
  return reinterpret_cast<jlong>(engine.release());
}

extern "C" JNIEXPORT void JNICALL
Java_netstack_client_EmbeddedEngine_nativeStop(JNIEnv* env, jobject,
                                               jlong handle) {
  const std::unique_ptr<Engine> engine(reinterpret_cast<Engine*>(handle));
  netstack_stop(engine->service);  // no callback comes after it
  env->DeleteGlobalRef(engine->self);
}
