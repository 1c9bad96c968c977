"""Path-traced vehicles as surveillance cameras see them, clear with exact depth or in fog; `run.render` is the way in.

From a seed to images, each module using only those before it:

    meshes                 surfaces of triangles, painted by where a point lies
    vehicles               what is drawn of a model, and of a vehicle of that model
    light                  sun, sky, fog
    shells, liveries       the surface of a body, and what is painted on it
    riders, bodies         a vehicle's parts
    streets                the cameras, and what stands around them
    plan                   all views of all vehicles
    scene, trace           a view for Mitsuba 3; what its camera sees, without visible noise, and exact distances
    camera                 what the camera makes of it: optics, exposure, noise, JPEG
    run                    the order, and the files

Everything is made here: no model, texture or photograph of others.
"""
