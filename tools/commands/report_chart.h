#pragma once
// Charts as SVG in a page, whose style sheet gives the colours: the classes c0 to c7 of lines, `axis`, `grid` and `label`.
#include <string>
#include <utility>
#include <vector>

namespace brume::tools {

struct ReportLine {
  std::string name;
  size_t number = 0;  ///< chooses its colour, and beyond eight its dashes
  std::vector<std::pair<double, double>> points;
};

/// Returns text with <, >, & and quotes as HTML has them.
std::string html_text(const std::string& text);

/// Returns the classes of a line.
std::string line_class(size_t number);

/// Returns the chart. The vertical axis is logarithmic if all values are above 0 and the largest is more than 30 times the smallest.
/// `markers`: a dot at each point.
std::string report_chart(const std::string& title, const std::string& x, const std::vector<ReportLine>& lines, bool markers);

}  // namespace brume::tools
