#include "clients/cli/completion.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace netstack::cli {
namespace {

// What may stand in one place.
struct Values {
  bool any = false;    // Something must stand there, we cannot say what.
  bool files = false;  // A file's name.
  std::vector<std::string> words = {};
};

struct OptionInfo {
  std::vector<std::string> names = {};  // "--watch", "-w".
  std::string help;
  bool takes_value = false;  // Must have one behind it.
  Values values = {};
};

// A command of the tree, flattened.
struct Node {
  std::string path;  // "config get"; the app itself is "".
  std::string help;
  std::vector<std::string> commands = {};  // Names below it.
  // Its own and those of all above it.
  std::vector<OptionInfo> options = {};
  Values arguments = {};
};

// The whole tree, every node behind its parent.
struct Tree {
  std::string program;
  std::vector<Node> nodes = {};
};

// First line, without what would end a quoted word of a shell.
std::string Plain(const std::string& text) {
  return absl::StrReplaceAll(text.substr(0, text.find('\n')),
                             {{"'", ""}, {"\\", ""}, {"`", ""}, {"$", ""}});
}

Values ValuesOf(const CLI::Option& option, const CompletionWords& words) {
  Values values{.any = true};
  const std::string type = option.get_type_name();  // "STATE:{open,closed}"
  const size_t brace = type.find('{');
  if (brace != std::string::npos) {
    values.words = absl::StrSplit(
        type.substr(brace + 1, type.rfind('}') - brace - 1), ',');
    return values;
  }
  const auto known = words.find(type);
  if (known != words.end()) values.words = known->second;
  values.files = type == "FILE";
  return values;
}

void AddOptions(const CLI::App& app, const CompletionWords& words, Node& node) {
  for (const CLI::Option* option : app.get_options()) {
    if (!option->nonpositional()) continue;
    OptionInfo info{.help = Plain(option->get_description())};
    for (const std::string& name : option->get_lnames()) {
      info.names.push_back("--" + name);
    }
    for (const std::string& name : option->get_snames()) {
      info.names.push_back("-" + name);
    }
    info.takes_value = option->get_items_expected_min() > 0;
    if (info.takes_value) info.values = ValuesOf(*option, words);
    node.options.push_back(std::move(info));
  }
}

void Walk(const CLI::App& app, const std::vector<const CLI::App*>& above,
          const std::string& path, const CompletionWords& words, Tree& tree) {
  Node node{.path = path, .help = Plain(app.get_description())};
  AddOptions(app, words, node);
  for (const CLI::App* parent : above) {
    AddOptions(*parent, words, node);
  }
  for (const CLI::Option* option : app.get_options()) {
    if (!option->nonpositional()) node.arguments = ValuesOf(*option, words);
  }
  const auto everything = [](const CLI::App*) { return true; };
  std::vector<const CLI::App*> here = above;
  here.push_back(&app);
  const std::vector<const CLI::App*> below = app.get_subcommands(everything);
  for (const CLI::App* sub : below) node.commands.push_back(sub->get_name());
  tree.nodes.push_back(std::move(node));
  for (const CLI::App* sub : below) {
    Walk(*sub, here,
         path.empty() ? sub->get_name() : path + " " + sub->get_name(), words,
         tree);
  }
}

Tree WalkAll(const CLI::App& app, const CompletionWords& words) {
  Tree tree{.program = app.get_name()};
  Walk(app, {}, "", words, tree);
  return tree;
}

const Node* Find(const Tree& tree, const std::string& path) {
  for (const Node& node : tree.nodes) {
    if (node.path == path) return &node;
  }
  return nullptr;
}

std::string Below(const Node& node, const std::string& command) {
  return node.path.empty() ? command : node.path + " " + command;
}

// The lines of a "case" of bash and zsh that follow the words to a node.
std::string NodeCases(const Tree& tree) {
  std::string text;
  for (const Node& node : tree.nodes) {
    for (const std::string& command : node.commands) {
      absl::StrAppend(&text, "      '", node.path, ":", command, "') node='",
                      Below(node, command), "' ;;\n");
    }
  }
  return text;
}

// 'flows:--state'|'flows:-s'
std::string OptionPattern(const Node& node, const OptionInfo& option) {
  return absl::StrJoin(option.names, "|",
                       [&](std::string* out, const std::string& name) {
                         absl::StrAppend(out, "'", node.path, ":", name, "'");
                       });
}

std::string OptionNames(const Node& node) {
  std::vector<std::string> names;
  for (const OptionInfo& option : node.options) {
    names.insert(names.end(), option.names.begin(), option.names.end());
  }
  return absl::StrJoin(names, " ");
}

bool EndInEquals(const Values& values) {
  return !values.words.empty() && absl::EndsWith(values.words[0], "=");
}

std::string Header(const char* shell, const Tree& tree) {
  return absl::StrCat("# ", shell, " completion of ", tree.program,
                      ", made by \"", tree.program, " completion ", shell,
                      "\".\n");
}

std::string BashValues(const Values& values) {
  if (values.files)
    return "compopt -o filenames; COMPREPLY=($(compgen -f -- "
           "\"$cur\")); return ;;\n";
  if (values.words.empty()) return "return ;;\n";
  return absl::StrCat("words='", absl::StrJoin(values.words, " "), "' ;;\n");
}

std::string ZshValues(const Values& values) {
  if (values.files) return "_files; return ;;\n";
  if (values.words.empty()) return "return ;;\n";
  return absl::StrCat("compadd ", EndInEquals(values) ? "-S '' " : "", "-- ",
                      absl::StrJoin(values.words, " "), "; return ;;\n");
}

// 'name:help' of _describe, in which a colon ends the name.
std::string Described(const std::string& name, const std::string& help) {
  return absl::StrCat("'", absl::StrReplaceAll(name, {{":", "\\:"}}), ":", help,
                      "'");
}

std::string ZshOptions(const Node& node) {
  std::vector<std::string> described;
  for (const OptionInfo& option : node.options) {
    for (const std::string& name : option.names) {
      described.push_back(Described(name, option.help));
    }
  }
  return absl::StrJoin(described, "\n        ");
}

std::string ZshCommands(const Tree& tree, const Node& node) {
  std::vector<std::string> described;
  for (const std::string& command : node.commands) {
    described.push_back(
        Described(command, Find(tree, Below(node, command))->help));
  }
  return absl::StrJoin(described, "\n        ");
}

std::string FishValues(const Values& values) {
  if (values.files) return " -r -F";
  if (values.words.empty()) return " -x";
  return absl::StrCat(" -x -a '", absl::StrJoin(values.words, " "), "'");
}

std::string FishOption(const OptionInfo& option) {
  std::string text;
  for (const std::string& name : option.names) {
    absl::StrAppend(&text, absl::StartsWith(name, "--") ? " -l " : " -s ",
                    name.substr(name.find_first_not_of('-')));
  }
  if (option.takes_value) absl::StrAppend(&text, FishValues(option.values));
  return absl::StrCat(text, " -d '", option.help, "'\n");
}

}  // namespace

std::string BashCompletion(const CLI::App& app, const CompletionWords& words) {
  const Tree tree = WalkAll(app, words);
  std::string text = Header("bash", tree);
  absl::StrAppend(&text, "_", tree.program, R"(() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  local node='' words='' i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$node:${COMP_WORDS[i]}" in
)",
                  NodeCases(tree), R"(    esac
  done
  # Behind "PATH=" we know nothing.
  [[ $prev == = || $cur == = ]] && return
  case "$node:$prev" in
)");
  for (const Node& node : tree.nodes) {
    for (const OptionInfo& option : node.options) {
      if (!option.takes_value) continue;
      absl::StrAppend(&text, "    ", OptionPattern(node, option), ") ",
                      BashValues(option.values));
    }
  }
  absl::StrAppend(&text, R"(  esac
  if [[ -z $words && $cur == -* ]]; then
    case "$node" in
)");
  for (const Node& node : tree.nodes) {
    absl::StrAppend(&text, "      '", node.path, "') words='",
                    OptionNames(node), "' ;;\n");
  }
  absl::StrAppend(&text, R"(    esac
  elif [[ -z $words ]]; then
    case "$node" in
)");
  for (const Node& node : tree.nodes) {
    Values values = node.arguments;
    if (!node.commands.empty()) values.words = node.commands;
    absl::StrAppend(&text, "      '", node.path, "') ", BashValues(values));
  }
  absl::StrAppend(&text, R"(    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
}
complete -F _)",
                  tree.program, " ", tree.program, "\n");
  return text;
}

std::string ZshCompletion(const CLI::App& app, const CompletionWords& words) {
  const Tree tree = WalkAll(app, words);
  std::string text =
      absl::StrCat("#compdef ", tree.program, "\n", Header("zsh", tree));
  absl::StrAppend(&text, "_", tree.program, R"(() {
  local cur=${words[CURRENT]} prev=${words[CURRENT-1]} node=''
  local -a options commands
  local -i i
  for ((i = 2; i < CURRENT; i++)); do
    case "$node:${words[i]}" in
)",
                  NodeCases(tree), R"(    esac
  done
  case "$node:$prev" in
)");
  for (const Node& node : tree.nodes) {
    for (const OptionInfo& option : node.options) {
      if (!option.takes_value) continue;
      absl::StrAppend(&text, "    ", OptionPattern(node, option), ") ",
                      ZshValues(option.values));
    }
  }
  absl::StrAppend(&text, R"(  esac
  case "$node" in
)");
  for (const Node& node : tree.nodes) {
    absl::StrAppend(&text, "    '", node.path, "')\n      options=(\n        ",
                    ZshOptions(node), "\n      )\n      commands=(\n        ",
                    ZshCommands(tree, node), "\n      ) ;;\n");
  }
  absl::StrAppend(&text, R"(  esac
  if [[ $cur == -* ]]; then
    _describe -o option options
    return
  fi
  if (( ${#commands} )); then
    _describe command commands
    return
  fi
  case "$node" in
)");
  for (const Node& node : tree.nodes) {
    if (!node.commands.empty()) continue;
    absl::StrAppend(&text, "    '", node.path, "') ",
                    ZshValues(node.arguments));
  }
  absl::StrAppend(&text, "  esac\n}\nif [[ ${funcstack[1]-} == _", tree.program,
                  " ]]; then\n  _", tree.program, " \"$@\"\nelse\n  compdef _",
                  tree.program, " ", tree.program, "\nfi\n");
  return text;
}

std::string FishCompletion(const CLI::App& app, const CompletionWords& words) {
  const Tree tree = WalkAll(app, words);
  const std::string at = absl::StrCat("__", tree.program, "_at");
  std::string text = Header("fish", tree);
  absl::StrAppend(&text, "function ", at, R"(
    set -l node ''
    set -l typed (commandline -opc)
    for word in $typed[2..-1]
        switch "$node:$word"
)");
  for (const Node& node : tree.nodes) {
    for (const std::string& command : node.commands) {
      absl::StrAppend(&text, "            case '", node.path, ":", command,
                      "'\n                set node '", Below(node, command),
                      "'\n");
    }
  }
  absl::StrAppend(&text, R"(        end
    end
    test "$node" = "$argv[1]"
end
complete -c )",
                  tree.program, " -f\n");
  for (const Node& node : tree.nodes) {
    const std::string line = absl::StrCat("complete -c ", tree.program,
                                          " -n \"", at, " '", node.path, "'\"");
    for (const std::string& command : node.commands) {
      absl::StrAppend(&text, line, " -a ", command, " -d '",
                      Find(tree, Below(node, command))->help, "'\n");
    }
    for (const OptionInfo& option : node.options) {
      absl::StrAppend(&text, line, FishOption(option));
    }
    if (!node.arguments.words.empty()) {
      absl::StrAppend(&text, line, " -a '",
                      absl::StrJoin(node.arguments.words, " "), "'\n");
    } else if (node.arguments.files) {
      absl::StrAppend(&text, line, " -F\n");
    }
  }
  return text;
}

}  // namespace netstack::cli
