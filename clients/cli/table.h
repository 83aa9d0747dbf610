// Text tables for people: aligned columns, cut to a width, with colour.
//
//   Table table({{.title = "ID", .right = true}, {.title = "REMOTE",
//                 .shrink_to = 12}});
//   table.Row({"7", {"192.0.2.1:443", Style::kDim}});
//   out << table.Render({.width = 80, .colour = true});
#ifndef CLIENTS_CLI_TABLE_H_
#define CLIENTS_CLI_TABLE_H_

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace netstack::cli {

enum class Style { kPlain, kBold, kDim, kGood, kWarn, kBad };

// `text` in colour, when `colour` says so.
std::string Styled(const std::string& text, Style style, bool colour);

// What is printed in one field of a row. Control characters become "?".
struct Cell {
  Cell(std::string cell_text, Style cell_style = Style::kPlain)  // NOLINT
      : text(std::move(cell_text)), style(cell_style) {}
  Cell(const char* cell_text, Style cell_style = Style::kPlain)  // NOLINT
      : text(cell_text), style(cell_style) {}

  std::string text;
  Style style;
};

struct Column {
  std::string title;
  bool right = false;
  // Least width, for lines that are printed one at a time.
  size_t min_width = 0;
  // May be cut down to this width where the terminal is narrow; 0: never.
  size_t shrink_to = 0;
};

// How a table is printed.
struct Layout {
  // Columns of the terminal; 0: as wide as the text, as for a pipe.
  size_t width = 0;
  bool colour = false;
  bool header = true;
  size_t indent = 0;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // Cells that are missing at the end are empty.
  void Row(std::vector<Cell> cells);

  // A line of its own across all columns, which do not grow with it.
  void Heading(std::string text);

  bool empty() const { return rows_.empty(); }

  // Lines with "\n", without blanks at their end.
  std::string Render(const Layout& layout) const;

 private:
  struct Line {
    bool heading = false;
    std::vector<Cell> cells;
  };

  std::vector<size_t> Widths(const Layout& layout) const;
  std::string RenderLine(const Line& line, const std::vector<size_t>& widths,
                         const Layout& layout) const;

  std::vector<Column> columns_;
  std::vector<Line> rows_;
};

}  // namespace netstack::cli

#endif  // CLIENTS_CLI_TABLE_H_
