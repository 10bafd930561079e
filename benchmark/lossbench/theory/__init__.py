"""Exact statements about losses that need no training; read beside CLAIMS: each function is one formula, each
test one number of it.

Notation, everywhere: N pixels, K classes; y (N, K) one-hot truth, p (N, K) probabilities; yh = mean(y) true
proportions, ph = mean(p) predicted proportions ("soft size"), t_k mean probability of class k inside its true
region ("soft recall"), r = ph / yh relative size. In the binary formulas yh, ph, p0 are the foreground's."""
