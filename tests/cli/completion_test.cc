#include "clients/cli/completion.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "clients/cli/app.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace netstack::cli {
namespace {

using ::testing::HasSubstr;

class CompletionTest : public ::testing::Test {
 protected:
  std::string Script(const std::string& shell) {
    std::ostringstream out, err;
    Console console{.out = &out, .err = &err};
    EXPECT_EQ(RunCli({"completion", shell}, console), 0) << err.str();
    return out.str();
  }

  // The script in a file of this test's own.
  std::string File(const std::string& text) {
    const std::string path = ::testing::TempDir() + "netstackctl-" +
                             std::to_string(getpid()) + ".completion";
    std::ofstream(path) << text;
    return path;
  }

  // What a command prints.
  std::string Shell(const std::string& command) {
    std::string text;
    FILE* pipe = popen(command.c_str(), "r");
    if (pipe == nullptr) return "cannot run " + command;
    for (int c; (c = fgetc(pipe)) != EOF;) text += static_cast<char>(c);
    EXPECT_EQ(pclose(pipe), 0) << command;
    return text;
  }

  // What bash would offer for `words`, the last of which is being typed.
  std::string Offers(const std::string& words) {
    const std::string path =
        File(Script("bash") + "compopt() { :; }\nCOMP_WORDS=(" + words +
             ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_netstackctl\n"
             "echo \"${COMPREPLY[*]}\"\n");
    return Shell("bash '" + path + "'");
  }

  bool Has(const std::string& shell) {
    return std::system(("command -v " + shell + " > /dev/null").c_str()) == 0;
  }
};

TEST_F(CompletionTest, ShellsAcceptTheirScripts) {
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const std::string script = Script(shell);
    EXPECT_THAT(script, HasSubstr("netstackctl"));
    if (!Has(shell)) continue;
    EXPECT_EQ(Shell(shell + " -n '" + File(script) + "' 2>&1"), "") << shell;
  }
}

TEST_F(CompletionTest, BashOffersWhatMayFollow) {
  EXPECT_EQ(Offers("netstackctl conf"), "config\n");
  EXPECT_EQ(Offers("netstackctl config ''"), "get set apply\n");
  EXPECT_EQ(Offers("netstackctl flows --sort ''"), "id bytes age idle rate\n");
  EXPECT_EQ(Offers("netstackctl flows --rem"), "--remote --remote-port\n");
  EXPECT_EQ(Offers("netstackctl --json config set tcp.d"),
            "tcp.dial_timeout=\n");
  EXPECT_EQ(Offers("netstackctl flows --id ''"), "\n");
  EXPECT_EQ(Offers("netstackctl stats --js"), "--json\n");
}

TEST_F(CompletionTest, EveryCommandIsInEveryScript) {
  Console console{.out = nullptr, .err = nullptr};
  Context context{.console = &console};
  const auto app = MakeApp(context);
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const std::string script = Script(shell);
    for (const CLI::App* command :
         app->get_subcommands([](const CLI::App*) { return true; })) {
      EXPECT_THAT(script, HasSubstr("':" + command->get_name() + "'"));
    }
  }
}

}  // namespace
}  // namespace netstack::cli
