"""Deep convolutional neural fields: depth from superpixels (Liu et al. 2015, with fully convolutional pooling).

An image is cut into superpixels; a network gives each a depth z; a continuous CRF over those that touch, its weights
set by how alike they look, gives the most probable depths y*, in closed form; and pixels follow from them.
"""
