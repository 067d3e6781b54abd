// One element's term of the continuous Bernoulli density, and its derivatives.
#pragma once

#include "terms.h"

namespace vae_fast {
namespace VF_ISA {

// log(sinh h/h)/h² of h² from 0 to 1.
template <class T>
VF_INLINE T log_sinhc(T square) {
  if constexpr (sizeof(Element<T>) == 4) {
    // To 2.8e-10.
    return polynomial(square, 0.1666666716337204f, -0.005555541720241308f, 0.0003526200307533145f,
                      -2.6128051104024053e-05f, 1.745097506500315e-06f);
  } else {
    // To 2.8e-20.
    return polynomial(square, 0.16666666666666666, -0.005555555555555549, 0.0003527336860667527,
                      -2.6455026450827744e-05, 2.137779881617369e-06, -1.8036686303360608e-07, 1.5660917418065764e-08,
                      -1.387508773491433e-09, 1.2392426764757782e-10, -1.052506491347107e-11, 6.421599125797982e-13);
  }
}

// The derivative of log(sinh h/h) by h², for h² from 0 to 1.
template <class T>
VF_INLINE T log_sinhc_slope(T square) {
  if constexpr (sizeof(Element<T>) == 4) {
    // To 3.9e-11.
    return polynomial(square, 0.1666666716337204f, -0.011111108586192131f, 0.0010581680107861757f,
                      -0.00010567561548668891f, 1.0400374776509125e-05f, -8.083140983217163e-07f);
  } else {
    // To 7.6e-21.
    return polynomial(square, 0.16666666666666666, -0.011111111111111108, 0.0010582010582009535,
                      -0.00010582010581813358, 1.0688899558579583e-05, -1.082202029851211e-06, 1.0962933493647145e-07,
                      -1.1106327171121694e-08, 1.1238064589924514e-09, -1.123060045550072e-10, 1.0342542341987684e-11,
                      -6.522163248364548e-13);
  }
}

// log p(t) = y·t + log(y/(e^y − 1)), whose density is e^(yt) on [0, 1] over what makes its integral 1:
//   y(t − ½) − log(sinh(½y)/½y) for |y| ≤ 2, where the sum as written would be two parts that nearly cancel;
//   log(|y|/(1 − e^−|y|)) − |y|w for others, w = y > 0 ? 1 − t : t.
// Its slope by y is t less the mean.
template <class T>
VF_INLINE BernoulliTerm<T> continuous_bernoulli(T y, T t) {
  using E = Element<T>;
  const T size = abs(y), half = y * E(0.5), square = half * half, centred = t - E(0.5);
  const T near = fma(y, centred, -square * log_sinhc(square));
  const T near_slope = fma(half, -log_sinhc_slope(square), centred);
  const auto is_far = !(size <= E(2));
  if (!any(is_far)) return {near, near_slope, y};
  const T e = exp_of_negative(-size).value, rest = E(1) - e;
  const auto positive = y > E(0);
  const T wrong = select(positive, E(1) - t, t), cost = select(wrong == E(0), splat<T>(0), size * wrong);
  const T log_density = select(cost == infinity<T>(), -infinity<T>(), log(size / rest) - cost);
  const T away = E(1) / size - e / rest;
  return {select(is_far, log_density, near), select(is_far, select(positive, away - wrong, wrong - away), near_slope),
          y};
}

}  // namespace VF_ISA
}  // namespace vae_fast
