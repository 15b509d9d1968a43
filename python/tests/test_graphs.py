"""A replayed forward: same bytes as an eager one, recorded once a shape, and gone when memory is short."""

import pytest

SHAPES = ((2, 4, 16, 16), (2, 4, 16, 24))


@pytest.fixture(scope="module")
def configured():
    from darkroom import exactness

    exactness.configure(1)


@pytest.fixture
def network(device, configured):
    import torch

    torch.manual_seed(1)
    layers = torch.nn.Sequential(torch.nn.Conv2d(4, 32, 3, padding=1), torch.nn.GroupNorm(8, 32), torch.nn.SiLU())
    for _ in range(20):
        layers.extend([torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.GroupNorm(8, 32), torch.nn.SiLU()])
    return layers.extend([torch.nn.Conv2d(32, 4, 3, padding=1)]).to(device).eval()


def given(shape, device, seed):
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def replayed(network, device):
    import torch

    from darkroom.graphs import Replayed

    return Replayed(network, lambda latents: network(latents), torch.device(device))


def test_a_network_that_is_on_no_gpu_is_called_as_it_is(network, device):
    import torch

    if device != "cpu":
        pytest.skip("for a CPU")
    run = replayed(network, device)
    with torch.inference_mode():
        latents = given(SHAPES[0], device, 1)
        for _ in range(3):
            assert torch.equal(run(latents), network(latents))
    assert (run.captures, run.replays, run.bytes) == (0, 0, 0)


@pytest.fixture
def on_gpu(device):
    if not device.startswith("cuda"):
        pytest.skip("needs a GPU: --device cuda")


@pytest.mark.usefixtures("on_gpu")
class TestOnAGpu:
    def test_replays_have_the_bytes_of_eager_forwards_and_each_shape_is_recorded_once(self, network, device):
        import torch

        run = replayed(network, device)
        with torch.inference_mode():
            for seed in range(12):
                latents = given(SHAPES[seed % 2], device, seed)
                assert torch.equal(run(latents), network(latents)), seed
        assert run.captures == 2
        assert run.replays == 10
        assert run.bytes > 0

    def test_what_it_gave_is_not_changed_by_the_next_replay(self, network, device):
        import torch

        run = replayed(network, device)
        with torch.inference_mode():
            made = [run(given(SHAPES[0], device, seed)) for seed in range(5)]
            expected = [network(given(SHAPES[0], device, seed)) for seed in range(5)]
        assert all(torch.equal(*pair) for pair in zip(made, expected, strict=True))

    def test_weights_changed_in_place_are_followed_and_others_are_recorded_anew(self, network, device):
        import torch

        run = replayed(network, device)
        latents = given(SHAPES[0], device, 1)
        with torch.inference_mode():
            for _ in range(3):
                before = run(latents)
            network[0].weight.data.mul_(1.5)
            patched = run(latents)
            assert torch.equal(patched, network(latents))
            assert not torch.equal(patched, before)
            assert run.captures == 1
            network[0].weight.data = network[0].weight.data * 0.5
            assert torch.equal(run(latents), network(latents))
        assert run.captures == 2

    def test_at_most_four_shapes_are_kept(self, network, device):
        import torch

        from darkroom import graphs

        run = replayed(network, device)
        with torch.inference_mode():
            for rows in range(8, 8 + 2 * (graphs.MOST_SHAPES + 2), 2):
                for _ in range(3):
                    run(given((1, 4, rows, 8), device, rows))
            assert run.captures == graphs.MOST_SHAPES + 2
            run(given((1, 4, 8, 8), device, 1))
        assert run.captures == graphs.MOST_SHAPES + 3

    def test_emptied_caches_take_the_recordings_and_their_memory(self, network, device):
        import torch

        from darkroom import memory

        torch_device = torch.device(device)
        memory.drop_caches(torch_device)
        before = memory.reserved_bytes(torch_device)
        run = replayed(network, device)
        with torch.inference_mode():
            for _ in range(3):
                run(given((2, 4, 256, 256), device, 1))
        assert run.bytes > 0
        memory.drop_caches(torch_device)
        assert run.bytes == 0
        assert memory.reserved_bytes(torch_device) <= before + (4 << 20)
