"""Random generators that are no variables of the model.

Only PyTorch has such: Keras's Dropout draws there from PyTorch's own generators.
"""

import keras


def rng_state():
    """Returns the states of the backend's own generators as a dict of uint8 arrays, often empty."""
    return {f"torch/{place}": state.cpu().numpy() for place, state in torch_states().items()}


def restore_rng_state(arrays):
    """Takes up the states of `rng_state`; other arrays are left alone."""
    states = {name: array for name, array in arrays.items() if name.startswith("torch/")}
    if not states or keras.backend.backend() != "torch":
        return
    import torch

    for name, array in states.items():
        state, place = torch.from_numpy(array.copy()), name.partition("/")[2]
        if place == "cpu":
            torch.set_rng_state(state)
        elif int(place) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, int(place))


def torch_states():
    if keras.backend.backend() != "torch":
        return {}
    import torch

    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{str(i): state for i, state in enumerate(devices)}}
