"""The HTTP gateway: JSON, multipart and OpenAI's chat form in front of a Triton server, and a page.

`app` puts the routes together; `tasks` has one for each task, `chat` the OpenAI form, `health` what
a load balancer asks, `page` the try-out. Everything goes to the model server through `ofa_client`.
"""
