# In place of nvcr.io/nvidia/tritonserver: Triton 2.51.0 out of the nvidia-pytriton wheel with the
# Python stub where NVIDIA's image has it, and torch, on which the stand-in for the C++ PyTorch
# backend runs.
FROM ofa-stand-in/python
COPY constraints.txt /tmp/constraints.txt
RUN python3 -m pip install --no-cache-dir --constraint /tmp/constraints.txt torch "numpy<2" \
 && python3 -m pip install --no-cache-dir --constraint /tmp/constraints.txt --no-deps nvidia-pytriton
RUN triton=/usr/local/lib/python3.11/dist-packages/pytriton/tritonserver \
 && cp $triton/python_backend_stubs/3.11/triton_python_backend_stub $triton/backends/python/ \
 && ln -s ../../nvidia_pytriton.libs $triton/lib \
 && ln -s $triton /opt/tritonserver
ENV PATH=/opt/tritonserver/bin:$PATH
