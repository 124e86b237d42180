"""ONNX Runtime's settings for one worker process."""

import onnxruntime


def session(graph: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Load a graph, to be computed on the CPU by `threads` threads.

    Raises:
        Exception: ONNX Runtime's own, of many kinds: it is no graph, or not one for this version.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised
    # Threads that wait in a loop take the time of the stages beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
