"""Action chunks in time: buffer, blending, limits, watchdog."""
