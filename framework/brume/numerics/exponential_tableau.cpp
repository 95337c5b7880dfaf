#include "brume/numerics/exponential_tableau.h"

#include <cmath>

#include "brume/numerics/phi.h"

namespace brume {
namespace {

using Tableau = ExponentialTableau;

Tableau two_stages(double h, double c2, bool by_slope) {
  const double b2 = by_slope ? phi(2, -h) / c2 : phi(1, -h) / (2 * c2);
  return {{0, c2}, {{}, {c2 * phi(1, -c2 * h)}}, {phi(1, -h) - b2, b2}};
}

/// Returns three stages. gamma: the weight of the second stage as a multiple of the third's.
Tableau three_stages(double h, double c2, double c3, double gamma) {
  const double a32 = gamma * c2 * phi(2, -c2 * h) + c3 * c3 / c2 * phi(2, -c3 * h), b3 = phi(2, -h) / (gamma * c2 + c3);
  return {{0, c2, c3}, {{}, {c2 * phi(1, -c2 * h)}, {c3 * phi(1, -c3 * h) - a32, a32}}, {phi(1, -h) - (1 + gamma) * b3, gamma * b3, b3}};
}

Tableau etd_rk3(double h) {
  const double p1 = phi(1, -h), p2 = phi(2, -h), p3 = phi(3, -h);
  return {{0, 0.5, 1}, {{}, {0.5 * phi(1, -h / 2)}, {-p1, 2 * p1}}, {p1 - 3 * p2 + 4 * p3, 4 * p2 - 8 * p3, 4 * p3 - p2}};
}

/// Returns the weights of four stages at 0, 1/2, 1/2, 1, which the methods of order 4 share.
std::vector<double> weights_4(double h) {
  const double p1 = phi(1, -h), p2 = phi(2, -h), p3 = phi(3, -h);
  return {p1 - 3 * p2 + 4 * p3, 2 * p2 - 4 * p3, 2 * p2 - 4 * p3, 4 * p3 - p2};
}

Tableau etd_rk4(double h) {
  const double half = phi(1, -h / 2);
  return {{0, 0.5, 0.5, 1}, {{}, {half / 2}, {0, half / 2}, {half / 2 * std::expm1(-h / 2), 0, half}}, weights_4(h)};
}

Tableau krogstad(double h) {
  const double q1 = phi(1, -h / 2), q2 = phi(2, -h / 2), p1 = phi(1, -h), p2 = phi(2, -h);
  return {{0, 0.5, 0.5, 1}, {{}, {q1 / 2}, {q1 / 2 - q2, q2}, {p1 - 2 * p2, 0, 2 * p2}}, weights_4(h)};
}

Tableau strehmel_weiner(double h) {
  const double q1 = phi(1, -h / 2), q2 = phi(2, -h / 2), p1 = phi(1, -h), p2 = phi(2, -h), p3 = phi(3, -h);
  return {{0, 0.5, 0.5, 1},
          {{}, {q1 / 2}, {(q1 - q2) / 2, q2 / 2}, {p1 - 2 * p2, -2 * p2, 4 * p2}},
          {p1 - 3 * p2 + 4 * p3, 0, 4 * p2 - 8 * p3, 4 * p3 - p2}};
}

Tableau hochbruck_ostermann(double h) {
  const double q1 = phi(1, -h / 2), q2 = phi(2, -h / 2), q3 = phi(3, -h / 2), p1 = phi(1, -h), p2 = phi(2, -h), p3 = phi(3, -h);
  const double a52 = q2 / 2 - p3 + p2 / 4 - q3 / 2, a54 = q2 / 4 - a52;
  return {{0, 0.5, 0.5, 1, 0.5},
          {{}, {q1 / 2}, {q1 / 2 - q2, q2}, {p1 - 2 * p2, p2, p2}, {q1 / 2 - 2 * a52 - a54, a52, a52, a54}},
          {p1 - 3 * p2 + 4 * p3, 0, 0, 4 * p3 - p2, 4 * p2 - 8 * p3}};
}

Tableau lawson_4(double h) {
  const double half = std::exp(-h / 2), whole = std::exp(-h);
  return {{0, 0.5, 0.5, 1}, {{}, {half / 2}, {0, 0.5}, {0, 0, half}}, {whole / 6, half / 3, half / 3, 1.0 / 6}};
}

}  // namespace

ExponentialTableau exponential_tableau(ExponentialMethod method, double h, double c2, double c3) {
  switch (method) {
    case ExponentialMethod::euler: return {{0}, {{}}, {phi(1, -h)}};
    case ExponentialMethod::res_2s: return two_stages(h, c2, true);
    case ExponentialMethod::dpmpp_2s: return two_stages(h, c2, false);
    case ExponentialMethod::res_3s: return three_stages(h, c2, c3, c3 * (3 * c3 - 2) / (c2 * (2 - 3 * c2)));
    case ExponentialMethod::dpmpp_3s: return three_stages(h, c2, c3, 0);
    case ExponentialMethod::etd_rk3: return etd_rk3(h);
    case ExponentialMethod::etd_rk4: return etd_rk4(h);
    case ExponentialMethod::krogstad: return krogstad(h);
    case ExponentialMethod::strehmel_weiner: return strehmel_weiner(h);
    case ExponentialMethod::hochbruck_ostermann: return hochbruck_ostermann(h);
    case ExponentialMethod::lawson_4: break;
  }
  return lawson_4(h);
}

int order_of(ExponentialMethod method, double c3) {
  switch (method) {
    case ExponentialMethod::euler: return 1;
    case ExponentialMethod::res_2s:
    case ExponentialMethod::dpmpp_2s: return 2;
    case ExponentialMethod::dpmpp_3s: return std::abs(c3 - 2.0 / 3) < 1e-3 ? 3 : 2;
    case ExponentialMethod::res_3s:
    case ExponentialMethod::etd_rk3: return 3;
    default: return 4;
  }
}

}  // namespace brume
