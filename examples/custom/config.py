"""What is distilled, in Python as MMRazor's configs are: it is read, not executed."""

custom_imports = {"imports": ["own_parts"], "allow_failed_imports": False}

tau = 4

pairs = [
    {
        "student": "stem",
        "teacher": "stem",
        "loss": {"type": "CosineDistance", "loss_weight": 2.0},
        "student_connector": {"type": "GatedConnector", "before": 8, "after": 16},
    },
    {
        "student": "flat",
        "teacher": "flat",
        "head": {
            "type": "ProjectionHead",
            "student_width": 8,
            "teacher_width": 16,
            "width": 4,
            "loss": {"type": "L2Loss"},
        },
    },
    {"student": "head", "teacher": "head", "loss": {"type": "KLDivergence", "tau": tau}},
]
