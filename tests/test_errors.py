import pickle

import pytest

from trt_cam import errors

BUILTINS = {
    "InputError": ValueError,
    "UnsupportedModelError": TypeError,
    "WeightsError": OSError,
    "DatasetError": ValueError,
    "OutputError": OSError,
}


@pytest.mark.parametrize("name", BUILTINS)
def test_is_caught_as_ours_and_as_the_builtin(name):
    kind = getattr(errors, name)
    for caught in (errors.TrtCamError, BUILTINS[name]):
        with pytest.raises(caught, match="what came"):
            raise kind("what came")


@pytest.mark.parametrize("name", BUILTINS)
def test_survives_a_process_boundary(name):
    error = pickle.loads(pickle.dumps(getattr(errors, name)("one line")))
    assert type(error).__name__ == name
    assert str(error) == "one line"


def test_the_tree_is_what_the_module_shows():
    found = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert found == {"TrtCamError", *BUILTINS}
    assert all(name in (errors.__doc__ or "") for name in found)
