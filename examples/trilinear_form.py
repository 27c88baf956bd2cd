"""One form, three kernels: see that convolution, transposed convolution and the weight gradient are one thing.

Run it: python examples/trilinear_form.py
"""

import numpy as np

import minifcn as mf
import minifcn.functional as F

rng = np.random.default_rng(0)
x = mf.Tensor(rng.standard_normal((1, 2, 7, 8)), requires_grad=True)  # image  (N, C, H, W)
w = mf.Tensor(rng.standard_normal((3, 2, 3, 3)), requires_grad=True)  # filter (O, C, I, J)
y = mf.Tensor(rng.standard_normal((1, 3, 4, 4)), requires_grad=True)  # scores (N, O, P, Q)

# B(x, w, y) = Σ x[n,c,h,v] · w[o,c,i,j] · y[n,o,p,q], once through the convolution ...
form = (F.conv2d(x, w, stride=2, padding=1) * y).sum()
# ... and once through the transposed convolution, with the very same filter. 8 columns and 7 columns both give 4
# scores at stride 2: output_size says which of the two is meant.
transposed = F.conv_transpose2d(y, w, stride=2, padding=1, output_size=(7, 8))
print(f"B through conv2d            {form.item():+.12f}")
print(f"B through conv_transpose2d  {(transposed * x).sum().item():+.12f}")

# B is linear in each argument, so its derivative in x, times x, is B again; and so for w and y
for name, argument, derivative in zip("xwy", (x, w, y), mf.grad(form, [x, w, y]), strict=True):
    print(f"⟨∂B/∂{name}, {name}⟩                  {(derivative * argument).sum().item():+.12f}")

# and ∂B/∂x is the transposed convolution, to the last digits
form = (F.conv2d(x, w, stride=2, padding=1) * y).sum()
(gradient,) = mf.grad(form, x)
print(f"|∂B/∂x − conv_transpose2d|   {np.abs(gradient.numpy() - transposed.numpy()).max():.1e}")
