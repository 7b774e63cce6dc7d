"""Pictures of NLVR's scenes, for people: the three boxes side by side, as in the corpus."""

from PIL import Image, ImageDraw

from examples.nlvr.scenes import PANELS, SIDE, STRIDE, Scene

COLOUR_VALUES = ((240, 205, 40), (25, 25, 25), (40, 110, 215))  # in the order of the scenes' colours
BOX, PAGE = (211, 211, 211), (255, 255, 255)


def draw_scene(scene: Scene) -> Image.Image:
    """Return the picture of a scene, 400 x 100 pixels."""
    image = Image.new("RGB", (STRIDE * (PANELS - 1) + SIDE, SIDE), PAGE)
    draw = ImageDraw.Draw(image)
    for panel in range(PANELS):
        draw.rectangle((STRIDE * panel, 0, STRIDE * panel + SIDE - 1, SIDE - 1), fill=BOX)
    for panel, x, y, side, colour, shape in scene.tolist():
        left, right, top, bottom = STRIDE * panel + x, STRIDE * panel + x + side - 1, y, y + side - 1
        fill = COLOUR_VALUES[colour]
        if shape == 0:
            draw.rectangle((left, top, right, bottom), fill=fill)
        elif shape == 1:
            draw.ellipse((left, top, right, bottom), fill=fill)
        else:
            draw.polygon([(left, bottom), ((left + right) / 2, top), (right, bottom)], fill=fill)
    return image
