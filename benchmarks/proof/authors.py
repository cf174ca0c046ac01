"""What the authors' own codes give on the same weights: run once, outside this repository, and written by hand."""

from __future__ import annotations

TITLE = "The authors' own codes on the same weights"
TEXT = """*Run outside this repository, once, and written by hand; nothing of their code or text is here.
LeNet-300-100 is the paper's checkpoint on all 10,000 test images, VGG-like the network of the tables above on 2,000;
ratios are shares of the channels, criterion `l1` (LBYL: `l2`), 256 training images where images are seen (seed 0).*

| method | repository, commit | licence |
| --- | --- | --- |
| neuron merging (`most-similar`) | friendshipkim/neuron-merging, d25cf3e | none |
| LBYL (`ridge`) | bigdata-inha/LBYL, 943fd20 | none |
| model folding (`folding`) | marza96/ModelFolding, 33e2818, part of nanguoyu/model-folding-universal, aefc320 | MIT |
| GRAIL (`gram`) | TWWinde/GRAIL_Compensation, ba5e48b | MIT |
| channel pruning (after He et al., ICCV 2017) | package aimet-torch 2.42.0 | BSD-3-Clause |

**Neuron merging**: the same networks. With `bn_scale = "published"` all 87 tensors of a VGG-16 with random weights,
half of its channels removed, differ by 1.3e-7 of their largest entry at most, and all 344 of the authors' ResNet-56
(93.88 % on CIFAR-10, as their file says) by 1.6e-7, at ratios 0.3 and 0.5. Their routine takes 2.5 s of CPU for the
VGG-16, `compress` of the bare network 0.38 s, a further one 0.08 s (7 and 30 times faster, one core, one run); they
neither follow the network nor compare it with the original.

**LBYL**: the same matrices on linear layers, but for one thing that neither its paper nor `ridge` has: it fits an
intercept over the weights of a row and then drops it. With rows centred the matrices agree to 1e-14; without, they
differ by a sixth to a third of their largest entry. Its published accuracies come out as published:

| LeNet-300-100, removed | λ₂ | their code | `ridge`, damping 0.3 | 0.1 | 0.01 |
| --- | --: | --: | --: | --: | --: |
| 50 % | 0.3 | 88.83 | 88.72 | 88.80 | 88.67 |
| 60 % | 0.6 | 87.75 | 87.61 | 87.58 | 87.56 |
| 70 % | 0.3 | 83.92 | 83.57 | 84.01 | 83.72 |
| 80 % | 1e-6 | 78.05 | 75.02 | 76.91 | 76.88 |

Their λ₂ differs from ratio to ratio, the damping here is one. Against us: at 80 % the intercept is worth a point.
Behind a batch norm ours is right: theirs puts coefficients of raw filters into the next layer without the ratio of the
two channels' γ/σ, has the variance where σ belongs, and adds a number to the diagonal where the bias term is an outer
product. VGG-like with 30 % removed: their code 48.3 % at the best of five λ₂, 54.4 % with γ/σ put right, `ridge`
without its repaired means 56.5 %, `ridge` 76.9 % (plain pruning 29.7 %); with 50 % removed 29.2 % to 42.7 %.

**Model folding**: with the same clusters the same networks: all weights of LeNet agree to 1e-7 of their largest entry
(`scales` and `repair` off, which go beyond it). The clusters differ: theirs also look at the next layer's weights, at
biases and batch norms, and are k-means from random starts (its package could not be installed; scikit-learn's k-means
stood in) or agglomerative, by Ward's rule. The latter was so much better behind batch norms that `folding` has it now
as `linkage = "ward"`:

| channels removed | theirs, k-means | Ward | with repair, k-means | Ward | `folding` | `linkage = "ward"` |
| --- | --: | --: | --: | --: | --: | --: |
| LeNet-300-100, 50 % | 89.05 | 88.83 |  |  | 89.07 | 89.06 |
| LeNet-300-100, 75 % | 81.51 | 85.86 |  |  | 85.78 | 86.16 |
| VGG-like, 50 % | 47.55 | 74.30 | 55.25 | 73.05 | 52.60 | 69.00 |
| VGG-like, 75 % | 18.70 | 22.95 | 27.75 | 22.20 | 28.00 | 23.85 |

Against us: `folding` in the tables above is k-means, and with Ward's rule theirs is ahead of ours by 5 points on the
VGG-like network with half of its channels removed. `gram` and `least-squares` are ahead of both there.

**GRAIL**: the same coefficients of the removed channels: they agree to 3e-15 on the same Gram matrix and ridge, but for
a layer with dead neurons, whose ridge here is a share of the mean over those that vary (a difference of 0.02). Kept
channels differ: there the ridge shrinks them too, here they stay as they are.

| channels removed | their code, ridge 1e-3 | `gram`, damping 1e-3 | `gram`, damping 1e-2 |
| --- | --: | --: | --: |
| LeNet-300-100, 50 % | 88.87 | 88.86 | 89.01 |
| LeNet-300-100, 75 % | 83.85 | 83.88 | 83.89 |
| VGG-like, 50 % | 79.25 | 79.55 | 78.90 |
| VGG-like, 75 % | 17.40 | 14.45 | 16.10 |

**AIMET's channel pruning** is no row of the tables above: its package wants a dozen others (bokeh, cvxpy, onnx, …) that
it does not use for this, and that were replaced by empty modules here. In manual mode, alike for all three convolutions
that it can cut (the inputs of one, so not what the last layer reads), chosen by the L2 norm and refitted by least
squares on the same 256 images, VGG-like, at its sizes:

| share of the MACs asked of each layer | parameters left | AIMET | CPU, s | `least-squares, obs, budget` | CPU, s |
| --- | --: | --: | --: | --: | --: |
| 75 % | 67.4 % | 91.45 | 3.9 | 91.75 | 35.7 |
| 50 % | 40.1 % | 89.95 | 4.9 | 91.20 | 21.3 |

Ahead by 0.3 and 1.3 points, and 4 to 9 times as slow."""
