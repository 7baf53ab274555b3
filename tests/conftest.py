from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. A fixture that all examples share is asked for where it is
# meant: those tests take a new session each time.
settings.register_profile(
    "parley", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("parley")
