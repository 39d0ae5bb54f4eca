"""Asks a server as one asks ModelScope: `python from_modelscope.py PICTURE [--server HOST:PORT]`.

A program that is written for ModelScope differs in its imports (`modelscope.pipelines` and
`modelscope.utils.constant`) and names a checkpoint where this one names a server.
"""

import argparse

from ofa_client.modelscope import OutputKeys, Tasks, pipeline

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("picture")
parser.add_argument("--server", default="localhost:8001", metavar="HOST:PORT")
arguments = parser.parse_args()

captioning = pipeline(Tasks.image_captioning, server=arguments.server)
result = captioning(arguments.picture)
print(result[OutputKeys.CAPTION])

answering = pipeline(Tasks.visual_question_answering, server=arguments.server)
result = answering({"image": arguments.picture, "text": "how many things are there?"})
print(result[OutputKeys.TEXT])

grounding = pipeline(Tasks.visual_grounding, server=arguments.server)
things = ["the duck", "the parrot"]
inputs = [{"image": arguments.picture, "text": thing} for thing in things]
for thing, result in zip(things, grounding(inputs, batch_size=2), strict=True):
    print(thing, result[OutputKeys.BOXES])
