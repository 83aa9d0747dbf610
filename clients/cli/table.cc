#include "clients/cli/table.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "clients/cli/format.h"

namespace netstack::cli {
namespace {

constexpr size_t kGap = 2;

const char* Code(Style style) {
  switch (style) {
    case Style::kPlain:
      return "";
    case Style::kBold:
      return "\x1b[1m";
    case Style::kDim:
      return "\x1b[2m";
    case Style::kGood:
      return "\x1b[32m";
    case Style::kWarn:
      return "\x1b[33m";
    case Style::kBad:
      return "\x1b[31m";
  }
  return "";
}

size_t Total(const std::vector<size_t>& widths, size_t indent) {
  return std::accumulate(widths.begin(), widths.end(), indent) +
         (widths.empty() ? 0 : kGap * (widths.size() - 1));
}

}  // namespace

std::string Styled(const std::string& text, Style style, bool colour) {
  if (!colour || style == Style::kPlain || text.empty()) return text;
  return absl::StrCat(Code(style), text, "\x1b[0m");
}

void Table::Row(std::vector<Cell> cells) {
  for (Cell& cell : cells) cell.text = Printable(cell.text);
  cells.resize(columns_.size(), Cell(""));
  rows_.push_back({.heading = false, .cells = std::move(cells)});
}

void Table::Heading(std::string text) {
  rows_.push_back(
      {.heading = true, .cells = {Cell(std::move(text), Style::kBold)}});
}

std::vector<size_t> Table::Widths(const Layout& layout) const {
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    size_t width = columns_[i].min_width;
    if (layout.header) width = std::max(width, DisplayWidth(columns_[i].title));
    for (const Line& line : rows_) {
      if (line.heading) continue;
      width = std::max(width, DisplayWidth(line.cells[i].text));
    }
    widths.push_back(width);
  }
  if (layout.width == 0) return widths;
  // The widest column gives way first, one by one, so that columns of like
  // size stay alike.
  while (Total(widths, layout.indent) > layout.width) {
    size_t widest = columns_.size();
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (columns_[i].shrink_to == 0 || widths[i] <= columns_[i].shrink_to) {
        continue;
      }
      if (widest == columns_.size() || widths[i] > widths[widest]) widest = i;
    }
    if (widest == columns_.size()) break;
    --widths[widest];
  }
  return widths;
}

std::string Table::RenderLine(const Line& line,
                              const std::vector<size_t>& widths,
                              const Layout& layout) const {
  std::string text(layout.indent, ' ');
  size_t used = layout.indent;
  size_t owed = 0;  // Blanks that are only written before more text.
  for (size_t i = 0; i < line.cells.size(); ++i) {
    const Cell& cell = line.cells[i];
    size_t width = line.heading ? DisplayWidth(cell.text) : widths[i];
    if (i > 0) owed += kGap;
    if (layout.width > 0) {
      const size_t at = used + owed;
      if (at >= layout.width) break;
      width = std::min(width, layout.width - at);
    }
    const std::string shown = Truncate(cell.text, width);
    const size_t fill = width - DisplayWidth(shown);
    if (shown.empty()) {
      owed += fill;
      continue;
    }
    const bool right = !line.heading && columns_[i].right;
    const size_t before = owed + (right ? fill : 0);
    absl::StrAppend(&text, std::string(before, ' '),
                    Styled(shown, cell.style, layout.colour));
    used += before + DisplayWidth(shown);
    owed = right ? 0 : fill;
  }
  return text + "\n";
}

std::string Table::Render(const Layout& layout) const {
  const std::vector<size_t> widths = Widths(layout);
  std::string text;
  if (layout.header) {
    Line header;
    for (const Column& column : columns_) {
      header.cells.emplace_back(column.title, Style::kBold);
    }
    text += RenderLine(header, widths, layout);
  }
  for (const Line& line : rows_) text += RenderLine(line, widths, layout);
  return text;
}

}  // namespace netstack::cli
