// For TSan builds only, in every binary that links gRPC.
//
// TSan does not see the locks inside the system's gRPC, but it sees what
// gRPC's headers inline into us, and would call each hand-over between gRPC's
// threads a race. What stays checked is everything between our own threads:
// loop, supervisor, streams, control. TSAN_OPTIONS has to have
// ignore_noninstrumented_modules=1 besides.

extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:libgrpc++.so\n"
         "race:libgrpc.so\n"
         "race:grpc::\n";
}
